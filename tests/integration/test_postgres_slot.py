"""Slot, fence and snapshot, attacked with transactions that do not end."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.fix_postgres import until
from tests.servers.postgres import PostgresServer

from penstock.config import Source
from penstock.errors import (
    SlotError,
    SlotHeldError,
    SourceRefusedError,
    SourceUnavailableError,
)
from penstock.lsn import Lsn
from penstock.pipeline import ends
from penstock.postgres import catalog, slot, waiting
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fix_postgres import Database

    from penstock.postgres.connection import Connection


def silent(_: str) -> None:
    pass


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def slot_name(database: Database) -> str:
    return f"slot_{database.name}"


# Slot


@pytest.mark.pg_all
def test_slot_from_birth_to_death(connection: Connection, slot_name: str) -> None:
    assert slot.slot_state(connection, slot_name) is None
    start = slot.create_slot(connection, slot_name, report=silent)
    state = slot.slot_state(connection, slot_name)
    assert state is not None
    assert (state.plugin, state.database, state.active_pid) == ("pgoutput", connection.info.dbname, None)
    assert state.confirmed_flush_lsn == start
    assert Lsn(0) < state.restart_lsn <= start
    assert not state.lost
    before = state.retained_bytes
    slot.heartbeat(connection)
    state = slot.slot_state(connection, slot_name)
    assert state is not None
    assert state.retained_bytes > before >= 0
    with pytest.raises(Exception, match="already exists"):
        slot.create_slot(connection, slot_name, report=silent)
    slot.drop_slot(connection, slot_name)
    slot.drop_slot(connection, slot_name)
    assert slot.slot_state(connection, slot_name) is None


def test_slot_creation_tells_whom_it_waits_for(
    database: Database,
    connection: Connection,
    slot_name: str,
    thread: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "WATCH_SECONDS", 0.05)
    reports: list[str] = []
    with database.connect(application_name="slowpoke") as other:
        other.execute("begin")
        other.execute("select txid_current()")
        made = thread.submit(slot.create_slot, connection, slot_name, report=reports.append)
        until(lambda: reports)
        assert not made.done()
        assert f"PID {other.info.backend_pid}" in reports[0]
        assert "slowpoke" in reports[0]
        other.execute("commit")
        assert made.result(20) > 0


def test_slot_creation_waits_for_prepared_transactions(
    database: Database,
    connection: Connection,
    slot_name: str,
    thread: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "WATCH_SECONDS", 0.05)
    reports: list[str] = []
    gid = f"o'dd {database.name}"
    with database.connect() as other:
        other.execute("create table t (id int)")
        other.execute("begin")
        other.execute("insert into t values (1)")
        other.execute(f"prepare transaction '{gid.replace(chr(39), chr(39) * 2)}'")  # type: ignore[call-overload]
        made = thread.submit(slot.create_slot, connection, slot_name, report=reports.append)
        until(lambda: reports)
        assert "prepared transaction 'o''dd" in reports[0]
        other.execute(f"commit prepared '{gid.replace(chr(39), chr(39) * 2)}'")  # type: ignore[call-overload]
        assert made.result(20) > 0


def test_slot_creation_can_be_given_up(
    database: Database, connection: Connection, slot_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WATCH_SECONDS", 0.05)

    def refuse(text: str) -> None:
        raise KeyboardInterrupt(text)

    with database.connect() as other:
        other.execute("begin")
        other.execute("select txid_current()")
        with pytest.raises(SlotError, match="given up"):
            slot.create_slot(connection, slot_name, report=silent, stopped=lambda: True)
        assert slot.slot_state(connection, slot_name) is None  # and the connection is of use
        with pytest.raises(SlotError, match=r"waits for PID .*given up after 0 s"):
            slot.create_slot(connection, slot_name, report=silent, longest_seconds=0)
        assert slot.slot_state(connection, slot_name) is None
        with pytest.raises(KeyboardInterrupt):
            slot.create_slot(connection, slot_name, report=refuse)
        assert slot.slot_state(connection, slot_name) is None


def test_a_slot_that_is_held_names_who_holds_it(
    database: Database, connection: Connection, connector: Connector, slot_name: str
) -> None:
    slot.create_slot(connection, slot_name, report=silent)
    with contextlib.closing(connector.replication({})) as holder:
        holder.pgconn.send_query(
            f"START_REPLICATION SLOT \"{slot_name}\" LOGICAL 0/0 (proto_version '1', publication_names 'x')".encode()
        )
        state = until(lambda: (found := slot.slot_state(connection, slot_name)) and found.active_pid and found)
        assert state.active_pid == holder.info.backend_pid
        with pytest.raises(SlotHeldError, match=f"PID {state.active_pid}"):
            slot.drop_slot(connection, slot_name)


def test_only_our_own_former_session_is_ended(
    database: Database, connection: Connection, connector: Connector, slot_name: str, role: Callable[..., str]
) -> None:
    slot.create_slot(connection, slot_name, report=silent)
    mine = slot.this_session(connection)
    assert mine.pid == connection.info.backend_pid
    with contextlib.closing(connector.replication({})) as holder:
        former = slot.this_session(holder)
        assert not slot.end_former_session(connection, slot_name, former), "it does not hold the slot"
        holder.pgconn.send_query(
            f"START_REPLICATION SLOT \"{slot_name}\" LOGICAL 0/0 (proto_version '1', publication_names 'x')".encode()
        )
        until(lambda: (found := slot.slot_state(connection, slot_name)) and found.active_pid)
        user = role("superuser")
        others = (
            (connection, replace(former, began=mine.began)),  # the process's number was used again
            (connection, mine),
            (connection, replace(former, pid=mine.pid)),
        )
        for asking, session in others:
            assert not slot.end_former_session(asking, slot_name, session)
        for source, name in (
            (Source(dsn=database.dsn), "another pipe"),
            (Source(dsn=database.server.dsn(database.name, user=user)), "penstock test"),
        ):
            with contextlib.closing(Connector(source, name).connect()) as stranger:
                assert not slot.end_former_session(stranger, slot_name, former)
        assert not slot.end_former_session(connection, f"{slot_name}_2", former)
        state = slot.slot_state(connection, slot_name)
        assert state is not None
        assert state.active_pid == former.pid
        assert slot.end_former_session(connection, slot_name, former)
        until(lambda: (found := slot.slot_state(connection, slot_name)) and not found.active_pid)


@pytest.mark.pg(">= 13")
def test_a_slot_that_lost_its_wal(postgres: PostgresServer) -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB", "wal_keep_size": "0"}
    with PostgresServer(postgres.version, settings) as server, server.connect() as admin:
        slot.create_slot(admin, "doomed", report=silent)
        admin.execute("create table t (v text)")

        def lost() -> str:
            admin.execute("insert into t select repeat('x', 1000) from generate_series(1, 20000)")
            admin.execute("select pg_switch_wal()")
            admin.execute("checkpoint")
            state = slot.slot_state(admin, "doomed")
            return state.lost if state else ""

        reason = until(lost)
        assert reason == ("wal_removed" if postgres.version >= 17 else "its WAL was removed")


def test_wal_level_replica(postgres: PostgresServer) -> None:
    with PostgresServer(postgres.version, {"wal_level": "replica"}) as server, server.connect() as admin:
        with pytest.raises(SourceRefusedError) as caught:
            slot.create_slot(admin, "s", report=silent)
        assert "wal_level = logical" in caught.value.hint


def test_no_slot_is_free(postgres: PostgresServer) -> None:
    with PostgresServer(postgres.version, {"max_replication_slots": "1"}) as server, server.connect() as admin:
        slot.create_slot(admin, "first", report=silent)
        with pytest.raises(SourceRefusedError) as caught:
            slot.create_slot(admin, "second", report=silent)
        assert "max_replication_slots" in caught.value.hint


# The fence


@pytest.mark.pg_all
def test_the_fence_passes_an_idle_server(connection: Connection) -> None:
    assert slot.fence(connection, silent, poll_seconds=0.001)


def test_the_fence_waits_for_the_newest_transaction_too(
    database: Database, connection: Connection, thread: ThreadPoolExecutor
) -> None:
    reports: list[str] = []
    with database.connect(application_name="writer") as other, database.connect() as later:
        other.execute("begin")
        other.execute("select txid_current()")
        passed = thread.submit(slot.fence, connection, reports.append, poll_seconds=0.001)
        until(lambda: reports)
        later.execute("begin")
        later.execute("select txid_current()")  # begins after the fence: not waited for
        assert not passed.done()
        assert f"PID {other.info.backend_pid}" in reports[0]
        assert "writer" in reports[0]
        assert f"PID {later.info.backend_pid}" not in "".join(reports)
        other.execute("rollback")
        assert passed.result(20)


def test_the_fence_waits_for_other_databases_and_subtransactions(
    database: Database, connection: Connection, thread: ThreadPoolExecutor
) -> None:
    """A snapshot's xmin counts every database; the report names the session wherever it is."""
    reports: list[str] = []
    with database.server.connect() as other:
        other.execute("begin")
        other.execute("savepoint a")
        other.execute("select txid_current()")
        passed = thread.submit(slot.fence, connection, reports.append, poll_seconds=0.001)
        until(lambda: reports)
        assert "database postgres" in reports[0]
        other.execute("rollback to a")
        assert not passed.done()
        other.execute("commit")
        assert passed.result(20)


def test_the_fence_waits_for_prepared_transactions(
    database: Database, connection: Connection, thread: ThreadPoolExecutor
) -> None:
    reports: list[str] = []
    with database.connect() as other:
        other.execute("create table t (id int)")
        other.execute("begin")
        other.execute("insert into t values (1)")
        other.execute(f"prepare transaction '{database.name}'")  # type: ignore[call-overload]
        passed = thread.submit(slot.fence, connection, reports.append, poll_seconds=0.001)
        until(lambda: reports)
        assert f"prepared transaction '{database.name}'" in reports[0]
        assert not passed.done()
        other.execute(f"commit prepared '{database.name}'")  # type: ignore[call-overload]
        assert passed.result(20)


def test_the_fence_can_be_given_up(database: Database, connection: Connection) -> None:
    with database.connect() as other:
        other.execute("begin")
        other.execute("select txid_current()")
        stop = threading.Event()
        assert not slot.fence(connection, lambda _: stop.set(), poll_seconds=0.001, stopped=stop.is_set)


def test_readers_do_not_hold_the_fence_up(database: Database, connection: Connection) -> None:
    with database.connect() as other:
        other.execute("begin isolation level repeatable read")
        other.execute("select count(*) from pg_class")
        assert slot.fence(connection, silent, poll_seconds=0.001)


# Positions and snapshots


@pytest.mark.pg_all
def test_in_progress(database: Database, connection: Connection) -> None:
    with database.connect() as other:
        other.execute("begin")
        (xid,) = other.execute("select txid_current()").fetchone() or (0,)
        assert slot.in_progress(connection, xid & 0xFFFFFFFF)
        assert not slot.in_progress(connection, (xid - 1) & 0xFFFFFFFF)
        assert slot.in_progress(connection, (xid + 1000) & 0xFFFFFFFF)  # has not begun yet
        other.execute("commit")
        assert not slot.in_progress(connection, xid & 0xFFFFFFFF)


def test_a_commit_that_nobody_sees_is_told(
    database: Database, connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a synchronous standby that is not there; the stream has it already."""
    monkeypatch.setattr(ends, "VISIBLE_SECONDS", 0.2)
    source = ends.SourceEnd(connector)
    with database.connect() as other:
        other.execute("begin")
        (xid,) = other.execute("select txid_current()").fetchone() or (0,)
        with pytest.raises(SourceUnavailableError, match=rf"transaction {xid} .* synchronous standby"):
            source.look(0, xid & 0xFFFFFFFF)
        other.execute("commit")
        assert source.look(0, xid & 0xFFFFFFFF) is None


@pytest.mark.pg_all
def test_system(database: Database, connection: Connection, connector: Connector) -> None:
    system = slot.system(connection)
    with contextlib.closing(connector.replication({})) as other:
        identifier, timeline, *_ = other.execute("IDENTIFY_SYSTEM").fetchone() or ("", 0)
    assert (system.system_identifier, system.timeline) == (identifier, timeline)
    assert (system.in_recovery, system.database) == (False, database.name)


def test_a_heartbeat_moves_the_end_of_the_wal(connection: Connection) -> None:
    before = slot.insert_lsn(connection)
    slot.heartbeat(connection)
    assert slot.insert_lsn(connection) > before


def test_an_ordinary_role_may_do_what_a_pipe_does(database: Database, role: Callable[..., str], slot_name: str) -> None:
    """REPLICATION, SELECT and a publication that exists are enough."""
    name = role("replication")
    database.execute(
        "create table t (id int primary key)", "create publication given for table t", f"grant select on t to {name}"
    )
    connector = Connector(Source(dsn=database.server.dsn(database.name, user=name)), "t")
    with contextlib.closing(connector.connect()) as mine:
        assert not slot.ensure_publication(mine, "given", catalog.read_tables(mine, lambda _: True), owned=False)
        slot.create_slot(mine, slot_name, report=silent)
        assert slot.fence(mine, silent)
        slot.heartbeat(mine)
        assert slot.insert_lsn(mine)
        assert slot.system(mine).timeline == 1
        assert slot.slot_state(mine, slot_name)
        with slot.exported_snapshot(connector) as (snapshot, _):
            assert snapshot
        slot.drop_slot(mine, slot_name)


@pytest.mark.pg_all
def test_an_exported_snapshot_stands_still(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute("create table t (id int)", "insert into t values (1)")
    with slot.exported_snapshot(connector) as (snapshot, seam):
        database.execute("insert into t values (2)")
        assert slot.insert_lsn(connection) > seam > 0
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read")
            connection.execute(f"set transaction snapshot '{snapshot}'")  # type: ignore[call-overload]
            assert connection.execute("select id from public.t").fetchall() == [(1,)]
    assert until(lambda: _slots(connection, "penstock_seam_%") == [])


def test_an_exported_snapshot_reports_its_waiting(
    database: Database, connector: Connector, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WATCH_SECONDS", 0.05)
    reports: list[str] = []
    with database.connect() as other:
        other.execute("begin")
        other.execute("select txid_current()")
        context = slot.exported_snapshot(connector, report=reports.append)
        entered = thread.submit(context.__enter__)
        until(lambda: reports)
        assert f"PID {other.info.backend_pid}" in reports[0]
        other.execute("commit")
        assert entered.result(20)[0]
        context.__exit__(None, None, None)


def _slots(connection: Connection, pattern: str) -> list[Any]:
    return connection.execute(
        "select slot_name from pg_replication_slots where slot_name like %s and database = current_database()",
        (pattern,),
    ).fetchall()
