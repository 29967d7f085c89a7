"""What a failover took is known by what the destination has, wherever a crash came before that was settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fix_clickhouse import batch_of
from tests.plans import pipe_of

from penstock.clickhouse import ddl, fit
from penstock.clickhouse.writer import Writer
from penstock.control.store import StateStore
from penstock.lsn import Lsn
from penstock.pipeline.checkpoint import PipeRecord, TableRecord
from penstock.pipeline.failover import follow
from penstock.pipeline.lifecycle import State
from penstock.postgres.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.fix_clickhouse import Place

PROMOTED = Timeline(2, ((1, Lsn(100)),))
LOST = (200 << 64) + 1  # the version of a row that commits behind


class _CrashError(Exception):
    pass


class Crashing(StateStore):
    """Ends, the first time, before the pipe's record is saved."""

    crashes = 1

    def save_pipe(self, record: PipeRecord, tables: Sequence[TableRecord] = ()) -> None:
        if self.crashes:
            self.crashes -= 1
            raise _CrashError
        super().save_pipe(record, tables)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Crashing]:
    store = Crashing(tmp_path)
    yield store
    store.close()


def settled(place: Place, store: Crashing) -> tuple[PipeRecord, dict[str, TableRecord]]:
    """Two tables that stream: one with a row that is lost, and one of which nothing is stored."""
    pipe = pipe_of()
    pipe.tables.options["public.n"] = pipe.tables.options["public.t"].model_copy(update={"shape": "null"})
    pipe = pipe.model_copy(update={"destination": pipe.destination.model_copy(update={"database": place.database})})
    before = PipeRecord("shop", "slot", "publication", "7000", Timeline(1), Lsn(90))
    StateStore.save_pipe(store, before, [_streaming(place, "t", oid=1), _streaming(place, "n", oid=2)])
    with pytest.raises(_CrashError):
        follow(pipe, store, place.client, before, (PROMOTED, store.tables("shop")))
    found = store.pipe("shop")
    assert found is not None
    follow(pipe, store, place.client, found, (PROMOTED, store.tables("shop")))
    again = store.pipe("shop")
    assert again is not None
    return again, {table.full_name: table for table in store.tables("shop")}


def _streaming(place: Place, name: str, *, oid: int) -> TableRecord:
    return TableRecord(oid, f"public.{name}", name, "", State.STREAMING, target_id=_id(place, name))


def _id(place: Place, name: str) -> str:
    there = {name, "renamed"} if name == "t" else {name}
    return next(filter(None, (fit.identity(place.client, place.database, each) for each in there)), "")


def test_the_epoch_rises_with_what_is_set_aside(place: Place, store: Crashing) -> None:
    """Nothing of a Null table is stored here: what it feeds needs the epoch, to tell new rows from those that never were."""
    Writer(place.client, place.database).insert(batch_of(place.table("id int4, note text"), ("1", "x"), version=LOST))
    place.run("create table {db}.n (id Int32) engine = Null")
    pipe, tables = settled(place, store)
    assert {name: table.state for name, table in tables.items()} == {
        "public.t": State.FAILED,
        "public.n": State.STREAMING,
    }
    assert pipe.epochs.starts == (Lsn(100),)
    assert pipe.timeline == PROMOTED


def test_a_table_is_found_under_the_name_that_was_not_saved_any_more(place: Place, store: Crashing) -> None:
    Writer(place.client, place.database).insert(batch_of(place.table("id int4, note text"), ("1", "x"), version=LOST))
    ddl.rename(place.client, place.database, "t", "renamed")
    place.run("create table {db}.n (id Int32) engine = Null")
    _, tables = settled(place, store)
    assert tables["public.t"].state is State.FAILED
    assert "as it stood at 0/64" in tables["public.t"].reason
