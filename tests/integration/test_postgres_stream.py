"""The stream: every frame once and in order, status on time, and a clear error however it ends. Compiled and in plain Python."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.servers.postgres import PostgresServer

from penstock.config import Source
from penstock.errors import PenstockError, PublicationError, SlotError, SlotHeldError, SourceUnavailableError
from penstock.lsn import Lsn
from penstock.postgres import catalog, slot, stream, wire
from penstock.postgres.connection import Connector
from penstock.postgres.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fix_postgres import Database
    from tests.fix_proxy import Proxy

    from penstock.postgres.connection import Connection

ODD = "p'u\"b\\,x 🐘"
SECONDS = 20.0


@pytest.fixture(params=["compiled", "python"])
def drained(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(wire, "_compiled", None)
    else:
        assert wire._compiled is not None, "build the compiled parts first: pip install -e ."
    return str(request.param)


@pytest.fixture
def slot_name(database: Database, connection: Connection) -> str:
    name = f"slot_{database.name}"
    database.execute("create table t (id int primary key, v text)")
    slot.ensure_publication(connection, ODD, catalog.read_tables(connection, lambda _: True), owned=True)
    slot.create_slot(connection, name, report=print)
    return name


def payloads(frames: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(frames):
        (length,) = struct.unpack_from(">I", frames, at)
        yield frames[at + 4 : at + 4 + length]
        at += 4 + length
    assert at == len(frames)


class Seen:
    """Counts what a stream said. ``end`` is where its last transaction ended."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.rows: list[bytes] = []
        self.end = Lsn(0)

    def take(self, frames: bytes) -> None:
        for payload in payloads(frames):
            if payload[:1] != b"w":
                assert payload[:1] == b"k"
                continue
            kind = payload[25:26].decode()
            self.kinds.append(kind)
            if kind == "I":
                self.rows.append(payload[25:])
            if kind == "C":
                self.end = Lsn(struct.unpack_from(">Q", payload, 35)[0])

    async def until(self, stream: Stream, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.kinds[-20:]
            self.take(await stream.read(1 << 16, 0.05))


async def confirmed(connection: Connection, name: str, lsn: Lsn, seconds: float = SECONDS) -> float:
    """How long it takes until the server has heard of ``lsn``."""
    began = time.monotonic()
    while True:
        state = slot.slot_state(connection, name)
        assert state is not None
        if state.confirmed_flush_lsn >= lsn:
            return time.monotonic() - began
        assert time.monotonic() < began + seconds, state
        await asyncio.sleep(0.002)


@pytest.mark.pg_all
def test_frames_come_and_positions_go(
    database: Database, connection: Connection, connector: Connector, slot_name: str, drained: str
) -> None:
    async def run() -> None:
        seen = Seen()
        opened = await Stream.open(connector, slot_name, ODD, work_mem="64MB", status_seconds=10)
        try:
            database.execute("insert into t select g, repeat('x', g % 1000) from generate_series(1, 20000) g")
            await seen.until(opened, lambda: "C" in seen.kinds)
            assert len(seen.rows) == 20000
            assert [kind for kind in seen.kinds if kind != "I"] == ["B", "R", "C"]
            opened.confirm(seen.end)
            assert await confirmed(connection, slot_name, seen.end) < 1.0
            opened.confirm(Lsn(1))  # never goes back
            assert opened.confirmed == seen.end
            with pytest.raises(ValueError, match="was received"):
                opened.confirm(Lsn(seen.end + 1), received=seen.end)
        finally:
            await opened.close()
        state = slot.slot_state(connection, slot_name)
        assert state is not None
        assert state.active_pid is None  # free as soon as it is closed

    asyncio.run(run())


def test_lone_rows_arrive_within_milliseconds(database: Database, connector: Connector, slot_name: str) -> None:
    async def run() -> None:
        opened = await Stream.open(connector, slot_name, ODD)
        seen, times = Seen(), []
        try:
            with database.connect() as writer:
                for each in range(30):
                    began = time.perf_counter()
                    writer.execute("insert into t values (%s)", (each,))
                    await seen.until(opened, lambda: len(seen.rows) > each and seen.kinds[-1] == "C")  # noqa: B023
                    times.append(time.perf_counter() - began)
        finally:
            await opened.close()
        assert sorted(times)[len(times) // 2] < 0.05

    asyncio.run(run())


def test_large_values(database: Database, connector: Connector, slot_name: str, drained: str) -> None:
    async def run() -> None:
        opened = await Stream.open(connector, slot_name, ODD)
        seen = Seen()
        try:
            database.execute("insert into t values (1, repeat('é', 10000000)), (2, 'small')")
            await seen.until(opened, lambda: "C" in seen.kinds)
        finally:
            await opened.close()
        assert [len(row) > 20_000_000 for row in seen.rows] == [True, False]
        assert seen.rows[0].count("é".encode()) == 10_000_000

    asyncio.run(run())


def test_a_read_returns_when_it_is_full(database: Database, connector: Connector, slot_name: str, drained: str) -> None:
    async def run() -> None:
        opened = await Stream.open(connector, slot_name, ODD)
        seen = Seen()
        try:
            database.execute("insert into t select g, repeat('x', 1000) from generate_series(1, 2000) g")
            while "C" not in seen.kinds:
                frames = await opened.read(10_000, 1.0)
                assert len(frames) < 10_000 + 3000
                seen.take(frames)
        finally:
            await opened.close()
        assert len(seen.rows) == 2000

    asyncio.run(run())


def test_a_cancelled_read_loses_nothing(database: Database, connector: Connector, slot_name: str) -> None:
    async def run() -> None:
        opened = await Stream.open(connector, slot_name, ODD)
        seen = Seen()
        try:
            with database.connect() as writer:
                for each in range(200):
                    writer.execute("insert into t values (%s)", (each,))
                    reading = asyncio.ensure_future(opened.read(1 << 20, 1.0))
                    await asyncio.sleep(each % 7 / 2000)
                    reading.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        seen.take(await reading)
            await seen.until(opened, lambda: len(seen.rows) == 200)
        finally:
            await opened.close()
        assert len(seen.rows) == 200

    asyncio.run(run())


def test_status_goes_out_while_nobody_reads(
    database: Database, connection: Connection, connector: Connector, slot_name: str
) -> None:
    """The server's buffers are full, and a confirm still arrives at once; and again by itself."""

    async def run() -> None:
        opened = await Stream.open(connector, slot_name, ODD, status_seconds=0.2)
        seen = Seen()
        try:
            database.execute("insert into t values (0)")
            await seen.until(opened, lambda: "C" in seen.kinds)
            database.execute("insert into t select g, repeat('x', 2000) from generate_series(1, 20000) g")
            opened.confirm(seen.end)
            assert await confirmed(connection, slot_name, seen.end) < 1.0
            before = _reply_time(connection)
            deadline = time.monotonic() + SECONDS
            while _reply_time(connection) == before:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            await seen.until(opened, lambda: len(seen.rows) == 20001)
        finally:
            await opened.close()

    asyncio.run(run())


def _reply_time(connection: Connection) -> Any:
    # reply_time is of 12 and later
    return connection.execute(
        "select reply_time from pg_stat_replication where application_name = 'penstock test' and pid in "
        "(select active_pid from pg_replication_slots where database = current_database())"
    ).fetchone()


def test_status_keeps_up_under_load(
    database: Database, connection: Connection, connector: Connector, slot_name: str
) -> None:
    """Reads that follow each other without a pause do not starve the status."""

    async def run() -> None:
        opened = await Stream.open(connector, slot_name, ODD)
        seen = Seen()
        try:
            database.execute("insert into t values (0)")
            await seen.until(opened, lambda: "C" in seen.kinds)
            first = seen.end
            for each in range(5):
                database.execute(f"insert into t select g from generate_series({each}00001, {each}00001 + 30000) g")
            reading = asyncio.ensure_future(seen.until(opened, lambda: seen.kinds.count("C") >= 6))
            opened.confirm(first)
            assert await confirmed(connection, slot_name, first) < 1.0
            assert not reading.done()
            await reading
        finally:
            await opened.close()

    asyncio.run(run())


# How it ends


def test_what_opening_refuses(database: Database, connection: Connection, connector: Connector, slot_name: str) -> None:
    async def run() -> None:
        for name, publication, kind in (
            ("no_such_slot", ODD, SlotError),
            ('Odd"slot', ODD, PenstockError),
            (slot_name, "no such publication", PublicationError),
        ):
            with pytest.raises(kind):
                await Stream.open(connector, name, publication)
        opened = await Stream.open(connector, slot_name, ODD)
        with pytest.raises(SlotHeldError, match=r"PID \d+"):
            await Stream.open(connector, slot_name, ODD)
        await opened.close()
        again = await Stream.open(connector, slot_name, ODD)
        await again.close()
        await again.close()

    asyncio.run(run())


def test_a_dropped_publication_stops_the_stream(
    database: Database, connection: Connection, connector: Connector, slot_name: str
) -> None:
    """12 to 17 say so; 18 skips the changes and only warns, which would lose them."""

    async def run() -> None:
        opened = await Stream.open(connector, slot_name, ODD)
        seen = Seen()
        try:
            database.execute("insert into t values (1)")
            await seen.until(opened, lambda: "C" in seen.kinds)
            slot.drop_publication(connection, ODD)
            database.execute("insert into t values (2)")
            with pytest.raises(PublicationError):
                await seen.until(opened, lambda: len(seen.rows) == 2)
        finally:
            await opened.close()
        assert len(seen.rows) == 1

    asyncio.run(run())


def test_terminated_and_stopped(postgres: PostgresServer, drained: str) -> None:
    async def follow(opened: Stream) -> None:
        """A server that shuts down waits until everything it has sent is confirmed."""
        while True:
            for payload in payloads(await opened.read(1 << 20, 0.2)):
                if payload[:1] == b"k":
                    opened.confirm(Lsn(struct.unpack_from(">Q", payload, 1)[0]))

    async def run(server: PostgresServer, end: Callable[[], object]) -> None:
        opened = await Stream.open(connector_to(server), "s", "p")
        ending = asyncio.ensure_future(asyncio.to_thread(end))
        try:
            for _ in range(2):  # it stays so
                with pytest.raises(SourceUnavailableError):
                    await asyncio.wait_for(follow(opened), SECONDS)
            opened.confirm(Lsn(1 << 60))
        finally:
            await opened.close()
            await ending

    def connector_to(server: PostgresServer) -> Connector:
        return Connector(Source(dsn=server.dsn()), "t")

    with PostgresServer(postgres.version) as server:
        with connector_to(server).connect() as admin:
            slot.ensure_publication(admin, "p", [], owned=True)
            slot.create_slot(admin, "s", report=print)
            asyncio.run(
                run(server, lambda: admin.execute("select pg_terminate_backend(active_pid) from pg_replication_slots"))
            )
        for end in (server.stop, server.kill):
            asyncio.run(run(server, end))
            server.start()


@pytest.mark.parametrize("where", [1, 3000, 70_000, 1_000_000])
def test_cut_in_mid_stream_and_opened_again(
    database: Database, connection: Connection, slot_name: str, proxy_to: Callable[[int], Proxy], where: int
) -> None:
    """What was not confirmed comes again: no row is missing, whatever the byte at which the link broke."""
    proxy = proxy_to(database.server.port)
    connector = Connector(Source(dsn=database.server.dsn(database.name, port=proxy.port)), "t")

    async def run() -> None:
        seen = Seen()
        opened = await Stream.open(connector, slot_name, ODD)
        database.execute("insert into t select g, repeat('x', 100) from generate_series(1, 20000) g")
        proxy.cut_after_bytes = where
        try:
            with pytest.raises(SourceUnavailableError):
                await seen.until(opened, lambda: "C" in seen.kinds)
        finally:
            await opened.close()
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                opened = await Stream.open(connector, slot_name, ODD)
                break
            except SlotHeldError:
                assert time.monotonic() < deadline
        seen = Seen()
        try:
            await seen.until(opened, lambda: "C" in seen.kinds)
        finally:
            await opened.close()
        assert len(seen.rows) == len(set(seen.rows)) == 20000

    asyncio.run(run())


@pytest.mark.pg("15")
def test_a_blackhole_does_not_hold_up_closing(
    database: Database, slot_name: str, proxy_to: Callable[[int], Proxy]
) -> None:
    proxy = proxy_to(database.server.port)
    connector = Connector(Source(dsn=database.server.dsn(database.name, port=proxy.port)), "t")

    async def run() -> float:
        opened = await Stream.open(connector, slot_name, ODD)
        while await opened.read(1 << 20, 0.3):
            pass
        proxy.blackhole()
        assert await opened.read(1 << 20, 0.3) == b""
        opened.confirm(Lsn(5))
        began = time.monotonic()
        await opened.close()
        return time.monotonic() - began

    assert asyncio.run(run()) < 5
    proxy.recover()


@pytest.mark.pg("15")
def test_opening_can_be_cancelled(
    database: Database, connection: Connection, slot_name: str, proxy_to: Callable[[int], Proxy]
) -> None:
    proxy = proxy_to(database.server.port)
    connector = Connector(Source(dsn=database.server.dsn(database.name, port=proxy.port)), "t")
    proxy.latency_seconds = 0.05

    async def run() -> None:
        opening = asyncio.ensure_future(Stream.open(connector, slot_name, ODD))
        while not proxy.connections:
            await asyncio.sleep(0.001)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(run())
    state = slot.slot_state(connection, slot_name)
    assert state is not None


@pytest.mark.pg("15")
def test_latency_does_not_slow_the_flow(database: Database, slot_name: str, proxy_to: Callable[[int], Proxy]) -> None:
    proxy = proxy_to(database.server.port)
    proxy.latency_seconds = 0.002
    connector = Connector(Source(dsn=database.server.dsn(database.name, port=proxy.port)), "t")

    async def run() -> None:
        opened = await Stream.open(connector, slot_name, ODD)
        seen = Seen()
        try:
            database.execute("insert into t select g from generate_series(1, 20000) g")
            await seen.until(opened, lambda: "C" in seen.kinds)
        finally:
            await opened.close()
        assert len(seen.rows) == 20000

    asyncio.run(run())


def test_settings_of_the_session(
    database: Database, connection: Connection, connector: Connector, slot_name: str
) -> None:
    started, session = stream._start(connector, slot_name, ODD, "77MB", lambda _: None)
    with contextlib.closing(started):
        assert session.pid == started.info.backend_pid
        found = connection.execute(
            "select application_name from pg_stat_activity where pid = %s", (started.info.backend_pid,)
        ).fetchone()
        assert found == ("penstock test",)
    assert stream._start_command("s", ODD).endswith(
        """LOGICAL 0/0 (proto_version '1', publication_names '"p''u""b\\,x 🐘"')"""
    )
