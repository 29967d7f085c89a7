"""The checks of the source: each finding is provoked on a real server, and its fix, run as it stands, makes it go away."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.servers.postgres import PostgresServer

from penstock.config import Pipe, parse
from penstock.finding import Finding, Severity
from penstock.postgres import QUERIES, catalog, checks, providers, slot
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_postgres import Database
    from tests.fix_proxy import Proxy

    from penstock.postgres.connection import Connection


def pipe_of(dsn: str, tables: dict[str, Any] | None = None, **source: Any) -> Pipe:
    return parse(
        {
            "pipe": {"name": "shop"},
            "source": {"dsn": dsn, **source},
            "destination": {"dsn": "chdb:///nowhere"},
            "tables": tables or {},
        },
        origin="test",
    )


def check(pipe: Pipe) -> list[Finding]:
    with contextlib.closing(Connector(pipe.source, "penstock test").connect()) as connection:
        return checks.check(connection, pipe, catalog.read_tables(connection, pipe.tables.matches))


def findings(pipe: Pipe, name: str) -> list[Finding]:
    return [finding for finding in check(pipe) if finding.check == name]


def mended(database: Database, found: list[Finding]) -> None:
    """Run every fix as the superuser."""
    for finding in found:
        database.execute(*finding.fix.sql)


@pytest.mark.pg_all
def test_a_good_source_has_no_findings(database: Database) -> None:
    database.execute("create table t (id int primary key, v text)")
    assert check(pipe_of(database.dsn)) == []


def test_wal_level_and_capacity(postgres: PostgresServer) -> None:
    settings = {"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"}
    if postgres.version >= 13:
        settings["max_slot_wal_keep_size"] = "64MB"
    with PostgresServer(postgres.version, settings) as server:
        with server.connect() as admin:
            admin.execute("create table t (id int primary key)")
            admin.execute("select pg_create_physical_replication_slot('standby')")
        pipe = pipe_of(server.dsn())
        with Connector(pipe.source, "t").replication({}):
            found = {finding.check: finding for finding in check(pipe)}
        expected = {"wal_level", "replication_slots", "wal_senders"}
        assert set(found) == expected | ({"wal_kept"} if postgres.version >= 13 else set())
        assert found["wal_level"].severity is Severity.BLOCKING
        with server.connect() as admin:
            for name in expected:
                fix = found[name].fix
                admin.execute(fix[fix.index("ALTER SYSTEM") : fix.index(";")])
            if postgres.version >= 13:
                for statement in found["wal_kept"].fix.split(";")[:2]:
                    admin.execute(statement)
        for name in settings:
            del server.settings[name]
        server.restart()
        assert check(pipe) == []


def test_privileges_come_in_one_pass(database: Database, role: Callable[..., str]) -> None:
    name = role()
    database.execute(
        'create schema "o.dd"',
        'create table "o.dd"."t""1" (id int primary key)',
        "create table public.p (id int primary key) partition by range (id)",
        'create table "o.dd".leaf partition of public.p for values from (0) to (10)',
    )
    pipe = pipe_of(database.server.dsn(database.name, user=name), {"include": ["*"]})
    found = check(pipe)
    assert all(finding.severity is Severity.BLOCKING for finding in found)
    by_check = {
        each: [finding for finding in found if finding.check == each]
        for each in ("replication_role", "privileges", "publication")
    }
    assert sum(map(len, by_check.values())) == len(found)
    assert [finding.subject for finding in by_check["privileges"]] == ["o.dd", "o.dd.leaf", 'o.dd.t"1', "public.p"]
    owned = {finding.subject for finding in by_check["publication"]}
    assert owned == {name, 'o.dd.t"1', "o.dd.leaf" if database.server.version == 12 else "public.p"}
    mended(database, by_check["replication_role"] + by_check["privileges"])
    assert {finding.check for finding in check(pipe)} == {"publication"}
    database.execute("create publication given for all tables")
    assert check(pipe_of(pipe.source.dsn, {"include": ["*"]}, publication="given")) == []
    database.execute(f"grant postgres to {name}")
    assert check(pipe) == []


def test_row_level_security(database: Database, role: Callable[..., str]) -> None:
    name = role("replication")
    database.execute(
        "create table t (id int primary key)",
        "alter table t enable row level security",
        f"grant select on t to {name}",
        "create publication given for table t",
    )
    pipe = pipe_of(database.server.dsn(database.name, user=name), publication="given")
    found = check(pipe)
    assert [(finding.check, finding.subject, finding.severity) for finding in found] == [
        ("row_security", "public.t", Severity.BLOCKING)
    ]
    mended(database, found)
    assert check(pipe) == []


def test_keys(database: Database) -> None:
    database.execute(
        "create table bare (id int)",
        "create table deferred (id int primary key deferrable)",
        "create table nothing (id int primary key)",
        "alter table nothing replica identity nothing",
        "create table whole (id int)",
        "alter table whole replica identity full",
        "create table events (id int)",
    )
    pipe = pipe_of(database.dsn, {"include": ["public.*"], "options": {"public.events": {"shape": "history"}}})
    found = check(pipe)
    seen = {finding.subject: (finding.severity, finding.problem.partition(":")[0]) for finding in found}
    assert seen == {
        "public.bare": (Severity.BLOCKING, "it has no primary key"),
        "public.deferred": (Severity.BLOCKING, "its primary key is deferrable, which cannot identify rows"),
        "public.nothing": (Severity.BLOCKING, "its replica identity is NOTHING"),
        "public.whole": (Severity.INFO, "it has no key"),
        "public.events": (Severity.WARNING, "it has no primary key"),
    }
    for finding in found:
        if finding.severity is Severity.BLOCKING:
            database.execute(finding.fix.partition("or: ")[2])
    assert Severity.BLOCKING not in {finding.severity for finding in check(pipe)}


def test_partitions_that_disagree(database: Database) -> None:
    database.execute(
        "create table r (id int primary key, x int not null) partition by range (id)",
        "create table l0 partition of r for values from (0) to (10)",
        "create table l1 partition of r for values from (10) to (20)",
        "create unique index on l1 (x)",
        "alter table l1 replica identity using index l1_x_idx",
    )
    pipe = pipe_of(database.dsn)
    found = findings(pipe, "replica_identity")
    assert [(finding.subject, finding.severity) for finding in found] == [("public.r", Severity.BLOCKING)]
    mended(database, found)
    assert check(pipe) == []


def test_what_is_left_out(database: Database) -> None:
    database.execute(
        "create unlogged table u (id int primary key)",
        "create schema other",
        "create unlogged table other.u (id int)",
        "create table g (id int primary key, d int generated always as (1) stored)",
        "create extension file_fdw",
        "create server files foreign data wrapper file_fdw",
        "create table r (id int) partition by range (id)",
        "alter table r replica identity full",
        "create foreign table other.f partition of r for values from (0) to (1) server files options (filename '/dev/null')",
    )
    found = {(finding.check, finding.subject): finding for finding in check(pipe_of(database.dsn))}
    assert set(found) == {
        ("left_out", "public.u"),
        ("left_out", "other.f"),
        ("columns_left_out", "public.g"),
        ("replica_identity", "public.r"),
    }
    assert "partition of public.r" in found["left_out", "other.f"].problem
    assert found["columns_left_out", "public.g"].severity is Severity.INFO
    database.execute(*found["left_out", "public.u"].fix.sql)
    assert [finding.subject for finding in findings(pipe_of(database.dsn), "left_out")] == ["other.f"]


def test_a_given_publication(database: Database) -> None:
    database.execute("create table a (id int primary key)", "create table b (id int primary key)")
    pipe = pipe_of(database.dsn, publication="given")
    (found,) = check(pipe)
    assert (found.check, found.severity, found.subject) == ("publication", Severity.BLOCKING, "given")
    database.execute(found.fix.partition("run: ")[2] or found.fix)
    assert check(pipe) == []
    database.execute("alter publication given drop table b", "alter publication given set (publish = 'insert, update')")
    found, narrow = check(pipe)
    assert "public.b" in found.problem
    assert narrow.severity is Severity.WARNING
    mended(database, [found, narrow])
    assert check(pipe) == []


@pytest.mark.pg(">= 15")
def test_a_publication_that_narrows(database: Database) -> None:
    database.execute(
        "create table a (id int primary key, v int)",
        "create table b (id int primary key, v int, g int generated always as (1) stored)",
        "create table c (id int primary key)",
        "create publication given for table a where (id > 5), b (id), c",
    )
    pipe = pipe_of(database.dsn, {"exclude": ["public.x"]}, publication="given")
    with contextlib.closing(Connector(pipe.source, "penstock test").connect()) as connection:
        tables = catalog.read_tables(connection, pipe.tables.matches, "given")
        found = checks.check(connection, pipe, tables)
    assert [dict(table.row_filters) for table in tables] == [{tables[0].oid: "(id > 5)"}, {}, {}]
    assert [(finding.check, finding.subject) for finding in found] == [("columns_left_out", "public.b")]
    assert "v, g" in found[0].problem


def test_slots(database: Database, connection: Connection, connector: Connector) -> None:
    name = f"slot_{database.name}"
    database.execute("create table t (id int primary key)", "create publication p for table t")
    pipe = pipe_of(database.dsn, slot=name)
    assert check(pipe) == []
    database.execute(f"select pg_create_logical_replication_slot('{name}', 'test_decoding')")
    (found,) = check(pipe)
    assert (found.severity, found.subject) == (Severity.BLOCKING, name)
    assert "test_decoding" in found.problem
    slot.drop_slot(connection, name)
    slot.create_slot(connection, name, report=print)
    assert check(pipe) == []
    with contextlib.closing(connector.replication({})) as holder:
        holder.pgconn.exec_(
            f"START_REPLICATION SLOT {name} LOGICAL 0/0 (proto_version '1', publication_names 'p')".encode()
        )
        (found,) = check(pipe)
        assert found.severity is Severity.INFO
        assert str(holder.info.backend_pid) in found.problem


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
        assert {finding.check for finding in check(pipe_of(server.dsn()))} >= {"recovery"}


def test_a_check_that_cannot_be_asked_is_said(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("create table t (id int primary key)")
    monkeypatch.setitem(QUERIES, "left_out", QUERIES["left_out"] + QUERIES["left_out"])  # type: ignore[arg-type]
    (found,) = check(pipe_of(database.dsn))
    assert (found.check, found.severity) == ("left_out", Severity.WARNING)
    assert "could not be checked" in found.problem


# Providers


def test_a_plain_server_is_generic(connection: Connection) -> None:
    assert providers.recognise(connection, "127.0.0.1").provider.name == "generic"
    assert providers.named("auto") is None


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("shop.cluster-abc123.eu-west-1.rds.amazonaws.com", "aurora"),
        ("shop.cluster-ro-abc123.eu-west-1.rds.amazonaws.com", "aurora"),
        ("shop.abc123.eu-west-1.rds.amazonaws.com", "rds"),
        ("shop.postgres.database.azure.com", "azure"),
        ("db.example.com", "generic"),
    ],
)
@pytest.mark.pg("18")
def test_providers_by_host(connection: Connection, host: str, name: str) -> None:
    assert providers.recognise(connection, host).provider.name == name


@pytest.mark.parametrize(("mark", "name"), [("rds.logical_replication=1", "rds"), ("azure.extensions=x", "azure")])
@pytest.mark.pg("18")
def test_providers_by_their_settings(postgres: PostgresServer, mark: str, name: str) -> None:
    setting, value = mark.split("=")
    with PostgresServer(postgres.version, {setting: value}) as server, server.connect() as connection:
        assert providers.recognise(connection, "10.0.0.1").provider.name == name
        connection.execute("create function aurora_version() returns text language sql as $$ select '16.1' $$")
        assert providers.recognise(connection, "10.0.0.1").provider.name == "aurora"
