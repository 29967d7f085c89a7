"""Who is taken for a synchronous standby: PostgreSQL itself says whether a setting matches a sender, and the check says the same."""

from __future__ import annotations

import contextlib
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql
from tests.findings import check, mend, named, one, pipe_of
from tests.fix_postgres import Database, until
from tests.servers.postgres import PostgresServer
from tests.servers.postgres_binaries import PASSWORD

from penstock.finding import Severity
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_standby import Cluster

    from penstock.config import Pipe
    from penstock.finding import Finding

NAME = "synchronous_standby_names"
SLOT = "penstock_shop"
SENDER = "penstock test"  # as the checks' connections are called in these tests
NINTH = "a, b, c, d, e, f, g, h, *"

# What it is set to, and what is found: the severity, and the value that mends it.
SETTINGS = (
    ("*", "blocking", ""),
    ('"*"', "blocking", ""),
    ('"penstock test"', "blocking", ""),
    ('  "Penstock TEST" ', "blocking", ""),
    ('any 2(s1, "penstock test",s2)', "warning", 'ANY 2 ("s1", "s2")'),
    ('ANY 3 (s1, "penstock test", s2)', "blocking", 'ANY 2 ("s1", "s2")'),
    ('FIRST 1 (s1, "penstock test")', "warning", 'FIRST 1 ("s1")'),
    ('FIRST 1 ("penstock test", s1)', "blocking", 'FIRST 1 ("s1")'),
    ('first\t2\v( "penstock test" ,s1, S1, s2)', "blocking", 'FIRST 2 ("s1", "S1", "s2")'),
    ("2 (s1, *)", "blocking", 'FIRST 1 ("s1")'),
    ("s1, *", "warning", 'FIRST 1 ("s1")'),
    ('"FIRST", "1 (", 1, 2, "penstock test"', "warning", 'FIRST 1 ("FIRST", "1 (", "1", "2")'),
    ('"a\'b""\\c,", *', "warning", 'FIRST 1 ("a\'b""\\c,")'),
    ('"", "penstock test"', "warning", 'FIRST 1 ("")'),
    ('s1, ANY_2, "penstock test"', "warning", 'FIRST 1 ("s1", "ANY_2")'),
    ("", "", ""),
    ("s1", "", ""),
    ("penstock, test", "", ""),
    ('"penstock test "', "", ""),
    ('"penstock  test"', "", ""),
    ('"x"", ""penstock test"', "", ""),
    ('"any 1 (penstock test)"', "", ""),
    ('"**", "s*"', "", ""),
    ('"penstoc\u212a test"', "", ""),  # a sign that is a k in small letters, but to PostgreSQL
    ("p\u00e9nstock, \u00a0", "", ""),  # no space to PostgreSQL
)


def set_to(admin: Any, value: str) -> None:
    admin.execute(sql.SQL("alter system set synchronous_standby_names = {}").format(value))
    admin.execute("select pg_reload_conf()")
    until(lambda: admin.execute(f"show {NAME}").fetchone() == (value,))


def severity(found: list[Finding]) -> str:
    return found[0].severity.value if found else ""


@contextlib.contextmanager
def sender(pipe: Pipe, name: str = SENDER) -> Iterator[None]:
    """A stream from the slot, of which something is confirmed: before that PostgreSQL counts nobody."""
    with contextlib.closing(Connector(pipe.source, name).replication({"wal_sender_timeout": "0"})) as connection:
        query = "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = %s"
        ((position,),) = connection.execute(query, (pipe.slot,)).fetchall()
        start = f"START_REPLICATION SLOT {pipe.slot} LOGICAL 0/0 (proto_version '1', publication_names 'p')"
        connection.pgconn.exec_(start.encode())
        connection.pgconn.put_copy_data(b"r" + struct.pack("!QQQQ?", *[int(position)] * 3, 0, False))
        connection.pgconn.flush()
        yield


@pytest.fixture
def alone(postgres: PostgresServer) -> Iterator[Database]:
    """A server of its own, with a table and a slot."""
    with PostgresServer(postgres.version, {"synchronous_commit": "local"}) as server:
        database = Database(server, "postgres")
        database.execute("create table t (id int primary key)", "create publication p for table t")
        database.execute(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
        yield database


@pytest.mark.pg_all
def test_what_postgresql_matches(alone: Database) -> None:
    """Before and while the pipe runs; the fix leaves it out, which PostgreSQL says, too."""
    pipe = pipe_of(alone.dsn, slot=SLOT)
    with alone.connect() as admin:

        def priority() -> int:
            query = "select sync_priority from pg_stat_replication where application_name = %s"
            ((found,),) = admin.execute(query, (SENDER,)).fetchall()
            return int(found)

        def matches(value: str) -> bool:
            """What PostgreSQL says, from the moment in which the sender has read the setting."""
            set_to(admin, NINTH)
            until(lambda: priority() == 9)
            set_to(admin, value)
            until(lambda: priority() != 9)
            return priority() > 0

        for value, expected, mended in SETTINGS:
            set_to(admin, value)
            before = named(pipe, NAME)
            assert severity(before) == expected, value
            with sender(pipe):
                assert matches(value) == bool(expected), value
                if before:
                    mend(alone, *before)
                    until(lambda mended=mended: admin.execute(f"show {NAME}").fetchone() == (mended,))
                    until(lambda: priority() == 0)
                    assert named(pipe, NAME) == []


def test_what_postgresql_says_while_it_runs(alone: Database) -> None:
    """It knows who is connected, and tells those who may read all statistics."""
    alone.execute(
        f"create role weak login replication password '{PASSWORD}'",
        "select pg_create_logical_replication_slot('other', 'pgoutput')",
    )
    pipe, hidden = (pipe_of(dsn, slot=SLOT) for dsn in (alone.dsn, alone.server.dsn(user="weak")))
    state = f"select sync_state from pg_stat_replication where application_name = '{SENDER}'"
    with alone.connect() as admin:
        set_to(admin, "*")
        with sender(pipe_of(alone.dsn, slot="other"), "other"), sender(pipe):
            until(lambda: admin.execute(state).fetchall() == [("potential",)])
            found = one(pipe, NAME)
            assert (found.subject, found.severity) == (NAME, Severity.WARNING)
            assert found.problem == '"*" in it matches the pipe: commits wait for the pipe when a standby is missing'
            assert one(hidden, NAME).severity is Severity.BLOCKING
        set_to(admin, f's1, "{SENDER}"')
        with sender(pipe):
            until(lambda: admin.execute(state).fetchall() == [("sync",)])
            found = one(pipe, NAME)
            assert (found.subject, found.severity) == (NAME, Severity.BLOCKING)
            assert found.problem == '"penstock test" in it matches the pipe: every commit waits for the pipe'
            assert one(hidden, NAME).severity is Severity.WARNING


@pytest.mark.pg("== 15")
def test_the_standbys_are_named_in_place_of_an_asterisk(cluster: Cluster) -> None:
    """Here by a role that sees the names only. The pipe's slot has a sender that never answers: commits hang until the fix."""
    cluster.primary.restart(synchronous_commit="local")
    (standby,) = cluster.standbys
    cluster.database.execute(
        "create table t (id int primary key)",
        "create publication p for table t",
        f"create role weak login replication password '{PASSWORD}'",
        f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')",
    )
    weak = pipe_of(cluster.primary.dsn("shop", user="weak"), slot=SLOT)
    with cluster.connect() as admin, cluster.connect() as writer, ThreadPoolExecutor(1) as pool:
        standby.stop()
        set_to(admin, "FIRST 2 (*)")
        with sender(weak):
            assert one(weak, NAME).severity is Severity.BLOCKING
            standby.start()
            until(lambda: admin.execute("select count(*) from pg_stat_replication").fetchone() == (2,))
            writer.execute("set synchronous_commit = on")
            written = pool.submit(writer.execute, "insert into t values (1)")
            waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
            until(lambda: admin.execute(waits).fetchone() == (1,))
            found = one(weak, NAME)
            assert found.severity is Severity.BLOCKING
            assert "add those that are away" in found.fix.advice
            mend(cluster.database, found)
            written.result(20)
            assert admin.execute(f"show {NAME}").fetchone() == ('FIRST 1 ("standby_1")',)
            assert named(weak, NAME) == []
            set_to(admin, "*")
            assert one(weak, NAME).severity is Severity.WARNING  # the standby answers in its place


@pytest.mark.pg("== 16")
def test_nobody_waits_for_those_that_a_standby_sends_to(cluster: Cluster) -> None:
    (standby,) = cluster.standbys
    cluster.primary.restart(synchronous_commit="local")
    cluster.database.execute("create table t (id int primary key)", "create publication given for table t")
    cluster.wait_until_followed()
    standby.restart(synchronous_standby_names="*")
    assert check(pipe_of(Database(standby, "shop").dsn, publication="given", standby=True)) == []


@pytest.mark.pg("== 15")
def test_a_provider_that_runs_the_standbys(alone: Database) -> None:
    with alone.connect() as admin:
        set_to(admin, "*")
    for provider in ("azure", "aurora"):
        found = one(pipe_of(alone.dsn, slot=SLOT, provider=provider), NAME)
        assert found.fix.sql == ()
        assert found.fix.advice.startswith("Set it to '', where the provider lets you; otherwise ask the provider to.")
    assert named(pipe_of(alone.dsn, mode="snapshot"), NAME) == []
