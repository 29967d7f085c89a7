"""States, positions, the lock, the store: without a server."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from penstock.control.hold import hold
from penstock.control.queries import address, answer, ask
from penstock.control.store import StateStore
from penstock.errors import DestinationError, PipeHeldError, StateError
from penstock.lsn import Lsn
from penstock.pipeline.checkpoint import Checkpoint, PartRecord, PipeRecord, TableRecord, beside, written_position
from penstock.pipeline.lifecycle import WAYS, State, change
from penstock.postgres.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore(tmp_path)
    yield store
    store.close()


def pipe_record(position: int = 0) -> PipeRecord:
    return PipeRecord("shop", "slot", "publication", "7000", Timeline(1), Lsn(position))


def test_every_state_can_fail_and_be_copied_again() -> None:
    assert set(WAYS) == set(State)
    for state in set(State) - {State.FAILED}:
        assert change(state, State.FAILED) is State.FAILED
    assert change(State.FAILED, State.WAITING) is State.WAITING
    with pytest.raises(ValueError, match="from waiting to streaming"):
        change(State.WAITING, State.STREAMING)


def test_written_is_the_oldest_floor_or_what_was_reached() -> None:
    assert written_position(500, [300, 200, 400]) == Lsn(200)
    assert written_position(500, []) == Lsn(500)


def test_saved_before_confirmed_and_never_backwards(store: StateStore) -> None:
    store.save_pipe(pipe_record(100))
    checkpoint = Checkpoint(store, "shop", Lsn(100))
    confirmed: list[tuple[int, int]] = []

    def confirm(lsn: Lsn) -> None:
        record = store.pipe("shop")
        assert record is not None
        confirmed.append((int(lsn), int(record.position)))

    async def advance() -> None:
        await checkpoint.advance(Lsn(200), confirm)
        await checkpoint.advance(Lsn(150), confirm)  # a new connection begins further back
        await checkpoint.advance(Lsn(200), confirm)

    asyncio.run(advance())
    assert confirmed == [(200, 200), (200, 200)]
    assert checkpoint.saved == 200


def test_the_store_gives_back_what_it_was_given(store: StateStore, tmp_path: Path) -> None:
    assert store.pipe("shop") is None
    store.save_pipe(pipe_record((1 << 56) - 1))
    store.save_pipe(pipe_record(1 << 40))
    record = TableRecord(
        4_000_000_000, 'public."odd.name"', "odd", "f" * 16, State.COPYING, "why", "how", Lsn(5), Lsn(6), Lsn(7), 8, 9
    )
    store.save_table("shop", record)
    store.save_parts("shop", record.oid, [PartRecord(0, "{}"), PartRecord(1, "{}")])
    store.save_part("shop", record.oid, PartRecord(1, "{}", done=True, rows=3, bytes=4))
    again = StateStore(tmp_path)
    assert again.pipe("shop") == pipe_record(1 << 40)
    assert again.tables("shop") == [record]
    assert again.parts("shop", record.oid) == [PartRecord(0, "{}"), PartRecord(1, "{}", True, 3, 4)]
    assert again.tables("other") == []
    again.save_parts("shop", record.oid, [])
    assert again.parts("shop", record.oid) == []
    again.forget("shop")
    assert again.pipe("shop") is None
    again.close()


def test_a_store_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database at all, and long enough to be looked at" * 50)
    with pytest.raises(StateError, match=r"state\.db cannot be used"):
        StateStore(tmp_path)


def test_a_store_of_another_version_is_an_error(store: StateStore, tmp_path: Path) -> None:
    store.close()
    StateStore(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("pragma user_version = 1")
    with pytest.raises(StateError, match="written by another version"):
        StateStore(tmp_path)


def test_a_pipe_is_held_by_one_process(tmp_path: Path) -> None:
    code = f"""
import pathlib, sys
from penstock.control.hold import hold
with hold(pathlib.Path({str(tmp_path)!r}), "shop"):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(PipeHeldError, match=f"process {other.pid} on"), hold(tmp_path, "shop"):
            pass
        other.kill()
        other.wait()
        with hold(tmp_path, "shop"), hold(tmp_path, "other"):
            pass
        other.stdin.close()


class Echo:
    def query(self, sql: str, output_format: str) -> bytes:
        if sql == "bad":
            raise DestinationError("that is no query", hint="Write another.")
        return f"{sql}|{output_format}".encode() * 10_000


@pytest.mark.parametrize("deep", [1, 12], ids=["short", "long path"])
def test_a_running_pipe_answers(tmp_path: Path, deep: int) -> None:
    folder = tmp_path.joinpath(*["a-folder-with-a-long-name"] * deep)
    folder.mkdir(parents=True)

    async def talk() -> None:
        assert await asyncio.to_thread(ask, folder, "shop", "select 1", "TSV") is None
        async with answer(folder, "shop", Echo()):
            assert oct(address(folder, "shop").stat().st_mode)[-3:] == "600"
            assert (
                await asyncio.to_thread(ask, folder, "shop", "select 'ü'", "TSV") == "select 'ü'|TSV".encode() * 10_000
            )
            with pytest.raises(DestinationError, match="no query"):
                await asyncio.to_thread(ask, folder, "shop", "bad", "TSV")
        assert await asyncio.to_thread(ask, folder, "shop", "select 1", "TSV") is None

    asyncio.run(talk())


@pytest.mark.parametrize("target", ["orders", "語" * 21, "public:" + "語" * 21, "." * 126])
def test_a_name_beside_is_not_too_long(target: str) -> None:
    name = beside(target, "fresh", 4_294_967_295)
    assert name.endswith("_fresh_4294967295")
    assert target.startswith(name.removesuffix("_fresh_4294967295"))
    assert (name == "orders_fresh_4294967295") == (target == "orders")
    plain = sum(each in b"abcdefghijklmnopqrstuvwxyz_0123456789" for each in name.encode())
    assert plain + 3 * (len(name.encode()) - plain) <= 206  # ClickHouse's limit
