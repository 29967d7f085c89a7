"""The checks of the source, of server, stream and WAL: each bad situation is made on a real server, its fix applied as printed."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.findings import check, mend, named, names, one, pipe_of, statements
from tests.fix_postgres import until
from tests.servers.postgres import PostgresServer

from penstock.finding import Severity
from penstock.postgres import QUERIES, server_checks, slot, wal_checks
from penstock.postgres.connection import Connector
from penstock.postgres.question import Question, Setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_postgres import Database
    from tests.fix_proxy import Proxy

    from penstock.postgres.connection import Connection


@pytest.mark.pg_all
def test_a_good_source_has_no_findings(database: Database) -> None:
    database.execute("create table t (id int primary key, v text)")
    assert check(pipe_of(database.dsn)) == []


def test_settings_of_the_server(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_checks, "MEASURED_SECONDS", 0.0)
    settings = {"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1", "max_connections": "9"}
    if postgres.version >= 13:
        settings["max_slot_wal_keep_size"] = "64MB"
    if postgres.version >= 18:
        settings["idle_replication_slot_timeout"] = "1h"
    with PostgresServer(postgres.version, settings) as server:
        with server.connect() as admin:
            admin.execute("create table t (id int primary key)")
            admin.execute("select pg_create_physical_replication_slot('standby')")
        pipe = pipe_of(server.dsn())
        with contextlib.closing(Connector(pipe.source, "t").replication({})):
            found = {finding.check: finding for finding in check(pipe)}
        expected = {"wal_level", "replication_slots", "wal_senders", "connections"}
        expected |= {"wal_kept"} if postgres.version >= 13 else set()
        expected |= {"idle_slots"} if postgres.version >= 18 else set()
        assert set(found) == expected
        assert found["wal_level"].severity is Severity.BLOCKING
        if postgres.version >= 13:
            assert "64.0 MB; at the " in found["wal_kept"].problem
        for name in settings:
            del server.settings[name]  # those of the command line go before those of ALTER SYSTEM
        with server.connect() as admin:
            for statement in statements(found.values()):
                admin.execute(statement)
            admin.execute("select pg_reload_conf()")
            assert "not restarted since" in one(pipe, "wal_level").problem
            assert one(pipe, "wal_senders").severity is Severity.WARNING  # the only one is free now
        assert "After that restart the server." in found["wal_level"].fix.advice
        server.restart()
        assert check(pipe) == []


def test_wal_is_measured_while_the_others_ask(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_checks, "MEASURED_SECONDS", 0.0)
    asked = Question.of(connection, pipe_of(database.dsn), [])
    limited = {**asked.settings, "max_slot_wal_keep_size": Setting("8192", pending=False)}  # 8 GB
    database.execute("select pg_logical_emit_message(false, '', repeat('x', 8000000))")
    (found,) = wal_checks.wal_kept(replace(asked, settings=limited))
    assert found.severity is Severity.WARNING
    assert re.search(r"8\.00 GB; at the [\d.]+ MB of WAL a second", found.problem)


def test_a_given_publication(database: Database) -> None:
    database.execute("create table a (id int primary key)", "create table b (id int primary key)")
    pipe = pipe_of(database.dsn, publication="given")
    (found,) = check(pipe)
    assert (found.check, found.severity, found.subject) == ("publication", Severity.BLOCKING, "given")
    mend(database, found)
    assert check(pipe) == []
    database.execute("alter publication given drop table b", "alter publication given set (publish = 'insert, update')")
    found, narrow = check(pipe)
    assert "public.b" in found.problem
    assert narrow.severity is Severity.WARNING
    mend(database, found, narrow)
    assert check(pipe) == []
    database.execute("create publication everything for all tables")
    assert "all tables" in one(pipe_of(database.dsn, publication="everything"), "publication").problem


@pytest.mark.pg(">= 15")
def test_a_publication_that_narrows(database: Database) -> None:
    database.execute(
        "create table a (id int primary key, v int)",
        "create table b (id int primary key, v int, g int generated always as (1) stored)",
        "create table c (id int primary key)",
        "create publication given for table a where (id > 5), b (id), c",
    )
    columns, rows = check(pipe_of(database.dsn, publication="given"))
    assert (columns.check, columns.subject, rows.check, rows.subject) == (
        "columns_left_out",
        "public.b",
        "row_filter",
        "public.a",
    )
    assert "v, g" in columns.problem
    assert "(id > 5)" in rows.problem


def test_slots(database: Database, connection: Connection, connector: Connector) -> None:
    name = f"slot_{database.name}"
    database.execute("create table t (id int primary key)", "create publication p for table t")
    pipe = pipe_of(database.dsn, slot=name)
    database.execute(f"select pg_create_logical_replication_slot('{name}', 'test_decoding')")
    (found,) = check(pipe)
    assert (found.severity, found.subject) == (Severity.BLOCKING, name)
    assert "test_decoding" in found.problem
    assert "source.slot" in found.fix.advice
    assert check(pipe_of(database.dsn, slot=f"{name}_2")) == []
    slot.drop_slot(connection, name)
    with database.connect() as holder:
        holder.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', true)", (name,))
        (found,) = check(pipe)
        assert (found.severity, "temporary" in found.problem) == (Severity.BLOCKING, True)
        assert check(pipe_of(database.dsn, slot=f"{name}_2")) == []
    until(lambda: slot.slot_state(connection, name) is None)  # the server drops it after the session's end
    slot.create_slot(connection, name, report=print)
    assert check(pipe) == []
    with contextlib.closing(connector.replication({})) as holder:
        holder.pgconn.exec_(
            f"START_REPLICATION SLOT {name} LOGICAL 0/0 (proto_version '1', publication_names 'p')".encode()
        )
        (found,) = check(pipe)
        assert found.severity is Severity.INFO
        assert str(holder.info.backend_pid) in found.problem


@pytest.mark.pg(">= 13")
def test_a_slot_that_has_lost_its_wal(postgres: PostgresServer) -> None:
    keep = "alter system set max_slot_wal_keep_size = '1MB'"
    with PostgresServer(postgres.version) as server:
        pipe = pipe_of(server.dsn(), slot="mine")
        with server.connect() as admin:
            admin.execute("create table t (id int primary key)")
            admin.execute("select pg_create_logical_replication_slot('mine', 'pgoutput')")
            admin.execute(keep)
            admin.execute("select pg_reload_conf()")
            while not named(pipe, "slot"):
                admin.execute("select pg_logical_emit_message(false, '', repeat('x', 8000000)), pg_switch_wal()")
            found = one(pipe, "slot")
            assert (found.severity, "about to lose" in found.problem) == (Severity.WARNING, True)
            for statement in statements([found]):
                admin.execute(statement)
            until(lambda: named(pipe, "slot") == [])
            admin.execute(keep)
            admin.execute("select pg_reload_conf()")
            until(lambda: named(pipe, "slot"))
            admin.execute("checkpoint")
            found = one(pipe, "slot")
            assert found.severity is Severity.BLOCKING
            for statement in statements([found]):
                admin.execute(statement)
        assert named(pipe, "slot") == []


def test_transactions_that_hold_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_checks, "LONG_SECONDS", 0.0)
    database.execute("create table t (id int primary key)")
    pipe = pipe_of(database.dsn)
    open_one = database.connect(application_name="nightly")
    with contextlib.closing(open_one), database.connect() as prepared:
        open_one.execute("begin")
        open_one.execute("insert into t values (1)")
        prepared.execute("begin")
        prepared.execute("insert into t values (2)")
        prepared.execute("prepare transaction 'it''s mine'")
        running, waiting = named(pipe, "long_transactions", "prepared_transactions")
        assert (running.severity, waiting.severity, waiting.subject) == (
            Severity.WARNING,
            Severity.WARNING,
            "it's mine",
        )
        assert "nightly" in running.problem
        mend(database, running)
        decision = re.search(r"ROLLBACK PREPARED '.*';", waiting.fix.advice)
        assert decision
        database.execute(decision[0])
    deadline = time.monotonic() + 10
    while named(pipe, "long_transactions", "prepared_transactions"):
        assert time.monotonic() < deadline


def test_transactions_that_the_role_may_not_see(database: Database, role: Callable[..., str]) -> None:
    name = role("replication")
    database.execute(
        "create table t (id int primary key)", f"grant select on t to {name}", "create publication p for table t"
    )
    pipe = pipe_of(database.server.dsn(database.name, user=name), {"include": ["public.t"]}, publication="p")
    with database.connect() as running:
        running.execute("begin")
        running.execute("insert into t values (1)")
        found = one(pipe, "long_transactions")
        assert (found.severity, found.subject) == (Severity.INFO, name)
        mend(database, found)
        assert named(pipe, "long_transactions") == []


@pytest.mark.pg(">= 14")
def test_a_slot_that_sends_prepared_transactions(database: Database) -> None:
    database.execute("create table t (id int primary key)", "create publication p for table t")
    database.execute(f"select pg_create_logical_replication_slot('{database.name}', 'pgoutput', false, true)")
    found = one(pipe_of(database.dsn, slot=database.name), "slot")
    assert found.severity is Severity.BLOCKING
    assert "two_phase" in found.problem
    database.execute(f"select pg_drop_replication_slot('{database.name}')")
    assert check(pipe_of(database.dsn, slot=database.name)) == []


def test_connections_of_a_role(database: Database, role: Callable[..., str]) -> None:
    name = role("replication connection limit 1")
    database.execute("create table t (id int primary key)", f"grant select on t to {name}", f"grant postgres to {name}")
    pipe = pipe_of(database.server.dsn(database.name, user=name))
    found = {finding.check: finding for finding in check(pipe)}  # on 12 the limit counts senders too
    assert set(found) == {"connections"} | ({"replication_connection"} if database.server.version == 12 else set())
    assert (found["connections"].subject, found["connections"].severity) == (name, Severity.BLOCKING)
    mend(database, found["connections"])
    assert check(pipe) == []
    database.execute(f"alter database {database.name} connection limit 5")
    (limited,) = check(pipe)
    assert (limited.check, limited.subject, limited.severity) == ("connections", database.name, Severity.WARNING)
    mend(database, limited)
    assert check(pipe) == []


def test_a_session_limit_that_is_switched_off(database: Database, role: Callable[..., str]) -> None:
    name = role("superuser")
    database.execute("create table t (id int primary key)", f"alter role {name} set wal_sender_timeout to 0")
    (found,) = check(pipe_of(database.server.dsn(database.name, user=name)))
    assert (found.check, found.severity) == ("wal_sender_timeout", Severity.INFO)


def test_clocks_that_differ(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("create table t (id int primary key)")
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + 3600)
    (found,) = check(pipe_of(database.dsn))
    assert (found.check, found.severity) == ("clock", Severity.WARNING)
    assert "by 1 h 00 min" in found.problem
    monkeypatch.undo()
    assert check(pipe_of(database.dsn)) == []


def test_an_encoding_without_a_meaning(database: Database) -> None:
    name = f"{database.name}_ascii"
    database.execute(f"create database {name} encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'")
    try:
        with database.server.connect(name) as admin:
            admin.execute("create table t (id int primary key)")
        assert names(pipe_of(database.server.dsn(name))) == {"encoding"}
    finally:
        database.execute(f"drop database {name}")


def test_releases_with_known_mistakes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("create table t (id int primary key)")
    ((number,),) = database.fetch("select current_setting('server_version_num')::int")
    major, minor = divmod(number, 10000)
    (first, *_) = server_checks.BUGS
    monkeypatch.setattr(server_checks, "BUGS", (type(first)(major, minor, minor + 1, first.problem),))
    (found,) = check(pipe_of(database.dsn))
    assert (found.check, found.severity) == ("version_bugs", Severity.WARNING)
    assert f"{major}.{minor + 1}" in found.fix.advice
    monkeypatch.setattr(server_checks, "BUGS", (type(first)(major, minor + 1, minor + 2, first.problem),))
    assert check(pipe_of(database.dsn)) == []


def test_a_pooler_is_recognised(database: Database, proxy_to: Callable[[int], Proxy]) -> None:
    """A pooler gives out process ids of its own: as here, where the server's BackendKeyData is changed on the way."""
    database.execute("create table t (id int primary key)")
    proxy = proxy_to(database.server.port)
    pipe = pipe_of(database.server.dsn(database.name, port=proxy.port))
    assert check(pipe) == []
    head = b"K\0\0\0\x0c"
    proxy.change = lambda piece: _other_pid(piece, piece.index(head) + len(head)) if head in piece else piece
    (found,) = check(pipe)
    assert (found.check, found.severity) == ("pooler", Severity.BLOCKING)
    assert "host and port of PostgreSQL itself" in found.fix.advice
    assert check(pipe_of(database.dsn)) == []


def test_a_way_that_replication_does_not_get_through(database: Database, proxy_to: Callable[[int], Proxy]) -> None:
    database.execute("create table t (id int primary key)")
    proxy = proxy_to(database.server.port)

    def refuse_the_next(piece: bytes) -> bytes:
        proxy.refuse = True
        return piece

    proxy.change = refuse_the_next
    pipe = pipe_of(database.server.dsn(database.name, port=proxy.port))
    (found,) = check(pipe)
    assert (found.check, found.severity) == ("replication_connection", Severity.BLOCKING)
    proxy.refuse, proxy.change = False, bytes
    assert check(pipe) == []


def _other_pid(piece: bytes, at: int) -> bytes:
    return piece[:at] + bytes(byte ^ 1 for byte in piece[at : at + 4]) + piece[at + 4 :]


@pytest.mark.pg("18")
def test_a_standby(postgres: PostgresServer) -> None:
    with PostgresServer(postgres.version) as server:
        with server.connect() as admin:
            admin.execute("create table t (id int primary key)")
        server.stop()
        server.add_file("standby.signal", "")
        server.start()
        assert names(pipe_of(server.dsn())) >= {"recovery"}


def test_a_check_that_cannot_be_asked_is_said(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("create table t (id int primary key)")
    monkeypatch.setitem(QUERIES, "left_out", QUERIES["left_out"] + QUERIES["left_out"])  # type: ignore[arg-type]
    (found,) = check(pipe_of(database.dsn))
    assert (found.check, found.severity) == ("left_out", Severity.WARNING)
    assert "could not be checked" in found.problem
