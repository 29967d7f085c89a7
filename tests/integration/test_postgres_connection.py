"""Connections: the session's settings whatever the role's are, and what becomes of everything that can go wrong."""

from __future__ import annotations

import contextlib
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from tests.fix_postgres import until
from tests.servers.postgres import PostgresServer, free_port

from penstock.config import Secret, Source
from penstock.errors import (
    ConfigError,
    PenstockError,
    Retry,
    SourceError,
    SourceRefusedError,
    SourceUnavailableError,
)
from penstock.postgres import catalog, copy, silence
from penstock.postgres.connection import Connector, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_postgres import Database
    from tests.fix_proxy import Proxy

HOSTILE = {
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "'postgres_verbose'",
    "extra_float_digits": "-10",
    "bytea_output": "'escape'",
    "timezone": "'Asia/Kathmandu'",
    "search_path": "'public'",
    "statement_timeout": "'10ms'",
    "idle_in_transaction_session_timeout": "'10ms'",
    "default_transaction_isolation": "'serializable'",
    "default_transaction_read_only": "on",
    "quote_all_identifiers": "on",
}
TEXTS = """
select '2024-02-03'::date::text, '2024-02-03 04:05:06+00'::timestamptz::text, '1 day 2 hours'::interval::text,
       (0.1::float8 + 0.2)::text, '\\x00ff'::bytea::text, current_setting('transaction_isolation'),
       current_setting('statement_timeout'), current_setting('client_encoding'), format_type('pg_class'::regtype, -1)
"""
EXPECTED = (
    "2024-02-03",
    "2024-02-03 04:05:06+00",
    "P1DT2H",
    "0.30000000000000004",
    "\\x00ff",
    "read committed",
    "0",
    "UTF8",
    "pg_class",
)


@pytest.mark.pg_all
def test_session_settings_win_over_the_roles(database: Database, role: Callable[..., str]) -> None:
    name = role("replication")
    for setting, value in HOSTILE.items():
        database.execute(f"alter role {name} set {setting} = {value}")
    if database.server.version >= 17:
        database.execute(f"alter role {name} set transaction_timeout = '20ms'")
    connector = Connector(Source(dsn=database.server.dsn(database.name, user=name)), "penstock test")
    for connection in (connector.connect(), connector.connect(copying=True), connector.replication({})):
        with contextlib.closing(connection):
            assert connection.execute(TEXTS).fetchone() == EXPECTED  # type: ignore[arg-type]
            assert connection.execute("begin; select pg_sleep(0.05); commit").nextset()
    with contextlib.closing(connector.connect(copying=True)) as connection:
        assert connection.execute("show row_security").fetchone() == ("off",)
        assert connection.execute("select pg_sleep(0.05), current_setting('application_name')").fetchone() == (
            "",
            "penstock test",
        )


def test_replication_connection_speaks_the_protocol(connector: Connector) -> None:
    with contextlib.closing(connector.replication({"wal_sender_timeout": "61s"})) as connection:
        assert connection.execute("show wal_sender_timeout").fetchone() == ("61s",)
        identity, timeline, _, name = connection.execute("IDENTIFY_SYSTEM").fetchone() or (None,) * 4
        assert identity
        assert timeline == 1
        assert name == connection.info.dbname


def test_options_of_the_dsn_are_kept(database: Database) -> None:
    dsn = database.server.dsn(database.name, options="-c work_mem=5MB", connect_timeout=3)
    with contextlib.closing(Connector(Source(dsn=dsn), "a\\b c").connect()) as connection:
        assert connection.execute(
            "select current_setting('work_mem'), current_setting('application_name')"
        ).fetchone() == (
            "5MB",
            "a\\b c",
        )
        assert {each.keyword: each.val for each in connection.pgconn.info}[b"connect_timeout"] == b"3"


def test_service_and_passfile(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = database.server
    (tmp_path / "services").write_text(
        f"[shop]\nhost=127.0.0.1\nport={server.port}\nuser=postgres\ndbname={database.name}\n"
    )
    (tmp_path / "pass").write_text(f"127.0.0.1:{server.port}:*:postgres:penstock\n")
    (tmp_path / "pass").chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    connector = Connector(Source(dsn=f"service=shop passfile={tmp_path}/pass"), "penstock test")
    assert connector.where == "service shop"
    connector.connect().close()


def test_second_host_is_tried(database: Database) -> None:
    dsn = database.server.dsn(database.name, host="127.0.0.1,127.0.0.1", port=f"{free_port()},{database.server.port}")
    Connector(Source(dsn=dsn), "penstock test").connect().close()


# What goes wrong

SECRET = "hunter2-%s"

REFUSED: dict[str, tuple[dict[str, Any], type[PenstockError], str, str]] = {
    "password": ({"password": SECRET}, SourceRefusedError, "password authentication failed", "password"),
    "no password": ({"password": ""}, SourceRefusedError, "no password supplied", "password"),
    "user": ({"user": "nobody at all"}, SourceRefusedError, "password authentication failed", "name"),
    "barred": ({"user": "barred"}, SourceRefusedError, "pg_hba.conf", "pg_hba.conf"),
    "database": ({"dbname": "no such"}, SourceRefusedError, 'database "no such" does not exist', "name"),
    "tls": ({"sslmode": "require"}, SourceRefusedError, "SSL", "sslmode"),
    "host": ({"host": "no.such.host.invalid"}, SourceUnavailableError, "resolve host", "host"),
    "port": ({"port": 1}, SourceUnavailableError, "Connection refused", "port"),
    "sslmode": ({"sslmode": "bogus"}, ConfigError, "invalid sslmode value", "DSN"),
    "service": ({"service": "nosuch"}, ConfigError, "definition of service", "DSN"),
}


@pytest.mark.pg("15")
@pytest.mark.parametrize("case", REFUSED)
def test_what_a_refused_connection_says(postgres: PostgresServer, case: str) -> None:
    changed, kind, text, hint = REFUSED[case]
    source = Source(dsn=postgres.dsn(**{"dbname": "postgres", **changed}))
    for connect in (Connector(source, "t").connect, lambda: Connector(source, "t").replication({})):
        with pytest.raises(kind) as caught:
            connect()
        assert type(caught.value) is kind
        assert text in caught.value.message
        assert hint in caught.value.hint
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__cause__ is None  # the driver's error knows the password


@pytest.mark.pg("15")
def test_secret_is_read_for_each_connection(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(dsn=postgres.dsn(password=None), password=Secret(env="PENSTOCK_TEST_SECRET"))
    connector = Connector(source, "t")
    with pytest.raises(ConfigError, match="PENSTOCK_TEST_SECRET"):
        connector.connect()
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", SECRET)
    with pytest.raises(SourceRefusedError) as caught:
        connector.connect()
    assert SECRET not in repr(caught.value)
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", "penstock")
    connector.connect().close()


@pytest.mark.parametrize("dsn", ["postgresql://u:geheim@[h/x", "host=a passwort=geheim", "geheim"])
def test_a_dsn_that_is_none(dsn: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Connector(Source(dsn=dsn), "t")
    assert "geheim" not in caught.value.message + caught.value.hint


@pytest.mark.pg("15")
def test_too_many_connections(postgres: PostgresServer) -> None:
    settings = {"max_connections": "6", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    with PostgresServer(postgres.version, settings) as server, contextlib.ExitStack() as held:
        connector = Connector(Source(dsn=server.dsn()), "t")
        for _ in range(6):
            held.callback(connector.connect().close)
        with pytest.raises(SourceUnavailableError) as caught:
            connector.connect()
        assert "max_connections" in caught.value.hint
        assert caught.value.retry is Retry.AFTER_BACKOFF


@pytest.mark.pg("18")
def test_stopped_and_killed_server(postgres: PostgresServer) -> None:
    with PostgresServer(postgres.version) as server:
        connector = Connector(Source(dsn=server.dsn()), "t")
        for end in (server.stop, server.kill):
            with contextlib.closing(connector.connect()) as connection:
                end()
                with pytest.raises(SourceUnavailableError), translated("asking"):
                    connection.execute("select 1")
                with pytest.raises(SourceUnavailableError):
                    connector.connect()
            server.start()


@pytest.mark.pg("18")
def test_starting_server_is_worth_another_try(postgres: PostgresServer) -> None:
    """A standby that waits for WAL that never comes keeps saying that it starts up."""
    with PostgresServer(postgres.version, {"restore_command": "false", "hot_standby": "off"}) as server:
        server.stop()
        server.add_file("standby.signal", "")
        with pytest.raises(RuntimeError):
            server.start(seconds=2)
        with pytest.raises(SourceUnavailableError) as caught:
            Connector(Source(dsn=server.dsn()), "t").connect()
        assert "starting" in caught.value.hint


def test_cut_and_terminated(database: Database, proxy_to: Callable[[int], Proxy]) -> None:
    proxy = proxy_to(database.server.port)
    connector = Connector(Source(dsn=database.server.dsn(database.name, port=proxy.port)), "t")
    with contextlib.closing(connector.connect()) as connection:
        proxy.cut()
        with pytest.raises(SourceUnavailableError), translated("asking"):
            connection.execute("select 1")
    with contextlib.closing(connector.connect()) as connection:
        database.execute(f"select pg_terminate_backend({connection.info.backend_pid})")
        with pytest.raises(SourceUnavailableError, match="terminat"), translated("asking"):
            connection.execute("select 1")
    proxy.refuse = True
    with pytest.raises(SourceUnavailableError):
        connector.connect()


@pytest.mark.pg("15")
def test_blackhole_is_noticed(database: Database, proxy_to: Callable[[int], Proxy]) -> None:
    proxy = proxy_to(database.server.port)
    proxy.blackhole()
    dsn = database.server.dsn(database.name, port=proxy.port, connect_timeout=2)
    with pytest.raises(SourceUnavailableError, match="timeout"):
        Connector(Source(dsn=dsn), "t").connect()


@pytest.mark.slow
@pytest.mark.pg("15")
def test_a_link_that_swallows_everything_is_given_up_and_a_long_statement_is_not(
    database: Database, proxy_to: Callable[[int], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy's kernel answers for it: only another connection can tell whether the server is at work."""
    for name in ("SILENT_SECONDS", "AGAIN_SECONDS", "ASKING_SECONDS"):
        monkeypatch.setattr(silence, name, 1 if name == "ASKING_SECONDS" else 0.1)
    database.execute("create table t as select g as id, repeat('x', 1000) as v from generate_series(1, 20000) g")
    proxy = proxy_to(database.server.port)
    connector = Connector(Source(dsn=database.server.dsn(database.name, port=proxy.port)), "t")
    ((oid,),) = database.fetch("select 't'::regclass::oid")
    with contextlib.closing(connector.connect()) as connection, ThreadPoolExecutor(1) as pool:
        table = catalog.look(connection, {oid})[oid]
        (part,) = copy.plan_parts(connection, table, ["id", "v"], part_rows=1_000_000)
        reading = copy.read_part(connector, part, table, ["id", "v"])
        assert next(reading)
        made = proxy.connections
        connection.execute("select pg_sleep(1)")
        assert proxy.connections > made + 2  # it was asked, and was at work
        proxy.blackhole()
        copying = pool.submit(list, reading)
        with pytest.raises(SourceUnavailableError, match="silent"), translated("asking"):
            connection.execute("select 1")
        with pytest.raises(SourceUnavailableError, match="silent"):
            copying.result()


def test_privileges_name_what_is_missing(database: Database, role: Callable[..., str]) -> None:
    database.execute(
        "create table secret (id int primary key)", "create schema closed", "create table closed.t (id int)"
    )
    connector = Connector(Source(dsn=database.server.dsn(database.name, user=role())), "t")
    with contextlib.closing(connector.connect()) as connection:
        for statement, hint in (
            ("select * from public.secret", "GRANT SELECT"),
            ("select * from closed.t", "GRANT USAGE"),
            ("create publication p", "GRANT CREATE ON DATABASE"),
            ("alter table public.secret add x int", "own the tables"),
            ("select pg_create_logical_replication_slot('x', 'pgoutput')", "REPLICATION"),
        ):
            with pytest.raises(SourceRefusedError) as caught, translated("trying"):
                connection.execute(statement)  # type: ignore[arg-type]
            assert hint in caught.value.hint, statement
    with pytest.raises(SourceRefusedError) as caught:
        connector.replication({})
    assert "REPLICATION" in caught.value.hint


def test_row_level_security_is_an_error_on_copying_connections(database: Database, role: Callable[..., str]) -> None:
    name = role()
    database.execute(
        "create table t (id int)", "alter table t enable row level security", f"grant select on t to {name}"
    )
    connector = Connector(Source(dsn=database.server.dsn(database.name, user=name)), "t")
    with contextlib.closing(connector.connect(copying=True)) as connection:
        with pytest.raises(SourceRefusedError) as caught, translated("reading"):
            connection.execute("select * from public.t")
        assert "BYPASSRLS" in caught.value.hint


def test_values_never_get_into_messages(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(SourceError) as caught, translated("casting"):
        connection.execute("select 'geheim'::int")
    assert "geheim" not in caught.value.message
    assert "22P02" in caught.value.message


def test_a_locked_table_is_worth_another_try(database: Database, connection: psycopg.Connection[Any]) -> None:
    database.execute("create table t (id int)")
    with database.connect() as other, other.transaction():
        other.execute("lock table t")
        connection.execute("set lock_timeout = '20ms'")
        with pytest.raises(SourceUnavailableError) as caught, translated("reading t"):
            connection.execute("select * from public.t")
    assert "locked" in caught.value.hint


def test_sql_messages_in_another_language(connection: psycopg.Connection[Any]) -> None:
    """Told apart by SQLSTATE and the server's function, not by English words."""
    with contextlib.suppress(psycopg.Error):
        connection.execute("set lc_messages = 'de_DE.UTF-8'")
    with pytest.raises(PenstockError) as caught, translated("asking"):
        connection.execute("select pg_catalog.pg_get_publication_tables('none')")
    assert type(caught.value).__name__ == "PublicationError"


def test_identifiers_of_all_kinds(database: Database) -> None:
    name = 'we"ird.na me 🐘\\'
    with database.server.connect() as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    try:
        with contextlib.closing(Connector(Source(dsn=database.server.dsn(name)), "t").connect()) as connection:
            assert connection.execute("select current_database()").fetchone() == (name,)
    finally:
        until(lambda: _dropped(database, name))


def _dropped(database: Database, name: str) -> bool:
    with database.server.connect() as admin:
        try:
            admin.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))
        except psycopg.errors.ObjectInUse:
            return False
    return True
