"""Publications: made and extended where they are ours, read only where they were given."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from penstock.config import Source
from penstock.errors import PublicationError, SourceChangedError, SourceRefusedError, SourceUnavailableError
from penstock.postgres import QUERIES, catalog, publication, slot, waiting
from penstock.postgres.connection import Connector
from penstock.postgres.waiting import LockedError, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from tests.fix_postgres import Database

    from penstock.postgres.connection import Connection
    from penstock.table import Table

ODD = "p'u\"b\\,x 🐘"


def read(connection: Connection, *names: str) -> list[Table]:
    return catalog.read_tables(connection, lambda name: name in names or not names)


@pytest.mark.pg("== 15")
def test_a_table_is_renamed_before_it_is_published(database: Database, connection: Connection) -> None:
    database.execute("create table a (id int primary key)")
    tables = read(connection, "public.a")
    database.execute("alter table a rename to b")
    for _ in range(2):  # made, and extended
        with pytest.raises(SourceChangedError, match=r'"public\.a" does not exist: it was renamed'):
            slot.ensure_publication(connection, ODD, tables, owned=True)
        slot.ensure_publication(connection, ODD, [], owned=True)


@pytest.mark.pg_all
def test_another_table_has_the_name_before_it_is_published(database: Database, connection: Connection) -> None:
    database.execute("create table a (id int primary key)")
    tables = read(connection, "public.a")
    database.execute("alter table a rename to b", "create table a (id int primary key)")
    for _ in range(2):  # made, and extended
        with pytest.raises(SourceChangedError, match=r"public\.a is another table by now"):
            slot.ensure_publication(connection, ODD, tables, owned=True)
        slot.ensure_publication(connection, ODD, [], owned=True)
        assert slot.published(connection, ODD) == set()
    slot.ensure_publication(connection, ODD, read(connection, "public.b"), owned=True)
    assert slot.published(connection, ODD) == {tables[0].oid}


@pytest.mark.pg_all
def test_publication_is_made_and_extended(database: Database, connection: Connection) -> None:
    database.execute(
        'create table "a.b" (id int primary key)',
        "create table parent (id int primary key)",
        "create table child () inherits (parent)",
        "create table r (id int) partition by range (id)",
        "create table s partition of r for values from (0) to (10) partition by range (id)",
        "create table l partition of s for values from (0) to (10)",
        "create table childless (id int) partition by range (id)",
    )
    assert slot.ensure_publication(connection, ODD, [], owned=True)
    assert not slot.ensure_publication(connection, ODD, [], owned=True)
    assert slot.ensure_publication(connection, ODD, read(connection, "public.parent"), owned=True)
    tables = {table.name: table for table in read(connection)}
    assert slot.published(connection, ODD) == {tables["parent"].oid}  # ONLY: its children are tables of their own
    assert slot.ensure_publication(connection, ODD, list(tables.values()), owned=True)
    assert not slot.ensure_publication(connection, ODD, list(tables.values()), owned=True)
    ordinary = {tables[name].oid for name in ("a.b", "parent", "child")}
    if database.server.version == 12:
        assert slot.published(connection, ODD) == ordinary | {tables["r"].leaves[0].oid}
    else:
        assert slot.published(connection, ODD) == ordinary | {tables["r"].oid, tables["childless"].oid}
    slot.drop_publication(connection, ODD)
    slot.drop_publication(connection, ODD)
    with pytest.raises(PublicationError):
        slot.published(connection, ODD)


def test_a_given_publication_is_never_altered(database: Database, connection: Connection) -> None:
    database.execute("create table a (id int primary key)", "create table b (id int primary key)")
    tables = read(connection)
    with pytest.raises(PublicationError, match="does not exist") as caught:
        slot.ensure_publication(connection, "given", tables, owned=False)
    statement = caught.value.hint.partition("run: ")[2]
    database.execute("create publication given for table a")
    with pytest.raises(PublicationError, match=r"does not publish public\.b$") as caught:
        slot.ensure_publication(connection, "given", tables, owned=False)
    assert slot.published(connection, "given") == {tables[0].oid}
    database.execute(caught.value.hint.removeprefix("Run: "))
    assert not slot.ensure_publication(connection, "given", tables, owned=False)
    database.execute("drop publication given", statement)  # the first hint works too
    assert not slot.ensure_publication(connection, "given", tables, owned=False)
    database.execute("create publication everything for all tables")
    assert not slot.ensure_publication(connection, "everything", tables, owned=False)


@pytest.mark.pg(">= 13")
def test_a_publication_of_leaves_covers_the_root(database: Database, connection: Connection) -> None:
    database.execute(
        "create table r (id int) partition by range (id)",
        "create table l0 partition of r for values from (0) to (10)",
        "create table l1 partition of r for values from (10) to (20)",
        "create publication one for table l0",
        "create publication leaves for table r with (publish_via_partition_root = false)",
    )
    with pytest.raises(PublicationError):
        slot.ensure_publication(connection, "one", read(connection), owned=False)
    assert not slot.ensure_publication(connection, "leaves", read(connection), owned=False)


def test_publishing_needs_the_owner(database: Database, role: Callable[..., str]) -> None:
    name = role()
    database.execute("create table t (id int primary key)", f'grant create on database "{database.name}" to {name}')
    with contextlib.closing(
        Connector(Source(dsn=database.server.dsn(database.name, user=name)), "t").connect()
    ) as mine:
        with pytest.raises(SourceRefusedError) as caught:
            slot.ensure_publication(mine, "p", read(mine), owned=True)
        assert "own the tables" in caught.value.hint


# Tables that others keep locked

LOCK = "begin; lock table {} in share update exclusive mode"  # as VACUUM does


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(waiting, "LOCK_TIMEOUT", "500ms")


@pytest.fixture
def told(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is time to look whom it waits for, also on a machine that is busy."""
    monkeypatch.setattr(waiting, "LOCK_TIMEOUT", "1500ms")


def ungranted(database: Database) -> int:
    where = "l.database = (select oid from pg_database where datname = current_database()) and not l.granted"
    return int(database.fetch(f"select count(*) from pg_locks l where {where}")[0][0])


@pytest.mark.pg_all
@pytest.mark.usefixtures("told")
def test_what_is_locked_is_left_out(database: Database, connection: Connection) -> None:
    database.execute(
        "create table a (id int primary key)",
        'create table "O\'dd .""t" (id int primary key)',
        "create table r (id int) partition by range (id)",
        "create table l0 partition of r for values from (0) to (10)",
        "create table l1 partition of r for values from (10) to (20)",
    )
    tables = read(connection)
    odd, a, r = (next(table for table in tables if table.name == name) for name in ("O'dd .\"t", "a", "r"))
    said: list[str] = []
    leaf_or_root = "l1" if database.server.version == 12 else "r"
    with database.connect(application_name="slow poke") as other, database.connect() as second:
        other.execute(LOCK.format('"O\'dd .""t"'))  # type: ignore[call-overload]
        second.execute(LOCK.format(leaf_or_root))  # type: ignore[call-overload]
        for _ in range(2):  # made, and extended
            late = publication.publish(connection, ODD, tables, owned=True, waiting=Waiting(said.append))
            assert late == {odd.oid, r.oid}
            assert slot.published(connection, ODD) == {a.oid}
        assert (
            f'creating publication "{ODD}" waits for the lock of public."O\'dd .""t": PID {other.info.backend_pid} ('
            in said[0]
        )
        assert "slow poke, idle in transaction, its query began 20" in said[0]
        assert f'adding tables to publication "{ODD}" waits' in said[-1]
        second.execute("commit")
        assert publication.publish(connection, ODD, tables, owned=True, waiting=Waiting()) == {odd.oid}
        assert publication.unpublished([a, r], slot.published(connection, ODD), roots=True) == []
    assert publication.publish(connection, ODD, tables, owned=True, waiting=Waiting()) == set()
    with database.connect() as other:
        other.execute(LOCK.format("a"))  # type: ignore[call-overload]
        assert publication.withdraw(connection, ODD, {a.oid, odd.oid}, Waiting()) == ["public.a"]
        assert slot.published(connection, ODD).intersection({a.oid, odd.oid}) == {a.oid}
        assert publication.publish(connection, ODD, [a, r], owned=True, waiting=Waiting()) == set()  # it is published
    assert publication.withdraw(connection, ODD, {a.oid, odd.oid}, Waiting()) == []
    assert connection.execute("show lock_timeout").fetchone() == ("0",)


@pytest.mark.pg_all
@pytest.mark.usefixtures("told")
def test_whoever_locks_a_table_without_a_session(database: Database, connection: Connection) -> None:
    database.execute("create table a (id int primary key)")
    gids = [f"o''dd {database.name}", f"harmless {database.name}"]
    said: list[str] = []
    try:
        database.execute(LOCK.format("a") + f"; prepare transaction '{gids[0]}'")
        database.execute(f"begin; insert into a values (1); prepare transaction '{gids[1]}'")
        with pytest.raises(LockedError, match=r"public\.a: prepared transaction 'o''dd .*, and was given up"):
            slot.ensure_publication(connection, "p", read(connection), owned=True, waiting=Waiting(said.append))
    finally:
        for gid in gids:
            database.execute(f"rollback prepared '{gid}'")
    assert said[-1].count("prepared transaction") == 1
    assert slot.ensure_publication(connection, "p", read(connection), owned=True)


@pytest.mark.usefixtures("told")
def test_a_role_that_may_not_see_what_others_do(database: Database, role: Callable[..., str]) -> None:
    name = role()
    database.execute(
        "create table a (id int primary key)",
        f"alter table a owner to {name}",
        f'grant create on database "{database.name}" to {name}',
    )
    with (
        database.connect() as other,
        contextlib.closing(Connector(Source(dsn=database.server.dsn(database.name, user=name)), "t").connect()) as mine,
    ):
        other.execute(LOCK.format("a"))  # type: ignore[call-overload]
        with pytest.raises(LockedError, match=rf"public\.a: PID {other.info.backend_pid} \("):
            slot.ensure_publication(mine, "p", read(mine), owned=True)


@pytest.mark.pg_all
def test_a_wait_for_a_lock_is_ended(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(waiting, "LOCK_TIMEOUT", "60s")
    database.execute("create table a (id int primary key)", "create table b (id int primary key)")
    stop = threading.Event()
    with database.connect() as other:
        other.execute(LOCK.format("b"))  # type: ignore[call-overload]
        began = time.monotonic()
        with pytest.raises(SourceUnavailableError, match="given up"):
            publication.publish(
                connection, "p", read(connection), owned=True, waiting=Waiting(lambda _: stop.set(), stop.is_set)
            )
        assert time.monotonic() - began < 20
        assert ungranted(database) == 0
        assert connection.execute("select count(*) from pg_publication").fetchone() == (0,)
        assert slot.ensure_publication(connection, "p", read(connection, "public.a"), owned=True)


@pytest.mark.pg_all
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "statement",
    [
        "lock table a in share update exclusive mode",
        "lock table a in share mode",
        "lock table a in share row exclusive mode",
        "lock table a in exclusive mode",
        "lock table a in access exclusive mode",
    ],
)
def test_every_lock_against_it_is_known(database: Database, connection: Connection, statement: str) -> None:
    """Otherwise what is locked would be tried for ever, and the others would wait for it."""
    database.execute("create table a (id int primary key)", "create table b (id int primary key)")
    tables = read(connection)
    with database.connect() as other:
        other.execute("begin; " + statement)  # type: ignore[operator]
        assert publication.publish(connection, "p", tables, owned=True, waiting=Waiting()) == {tables[0].oid}
        assert slot.published(connection, "p") == {tables[1].oid}


@pytest.mark.usefixtures("quick")
def test_somebody_who_waits_for_a_lock_is_before_us(database: Database, connection: Connection) -> None:
    database.execute("create table a (id int primary key)")
    tables = read(connection)

    def alter(alterer: psycopg.Connection[object]) -> None:
        with contextlib.suppress(Exception):
            alterer.execute("alter table a add column b int")

    with database.connect() as writer, database.connect() as alterer:
        writer.execute("begin; lock table a in row exclusive mode")
        thread = threading.Thread(target=alter, args=[alterer])
        thread.start()
        try:
            deadline = time.monotonic() + 10
            while not ungranted(database):
                assert time.monotonic() < deadline
            assert publication.publish(connection, "p", tables, owned=True, waiting=Waiting()) == {tables[0].oid}
        finally:
            writer.execute("commit")
            thread.join()


# What it sends, as PostgreSQL says it


@pytest.mark.pg_all
@pytest.mark.pg(">= 15")
def test_what_is_sent_is_known_without_waiting_for_locks(database: Database, connection: Connection) -> None:
    """PostgreSQL's own functions say the same, but wait for every table of the publication."""
    new = database.server.version >= 18
    database.execute(
        "create schema other",
        "create table t (id int primary key, v int, g int generated always as (id + 1) stored)",
        "create table other.o (id int primary key, v int)",
        "create unlogged table u (id int primary key)",
        "create table r (id int primary key, v int) partition by range (id)",
        "create table s partition of r for values from (0) to (10) partition by range (id)",
        "create table other.l partition of s for values from (0) to (10)",
        "create table m partition of r for values from (10) to (20)",
        "create table parent (id int primary key)",
        "create table child () inherits (parent)",
        "alter table t drop column v, add column w int",
    )
    many = [
        "for all tables",
        "for all tables with (publish_via_partition_root = true)",
        "for tables in schema public",
        "for tables in schema public, other with (publish_via_partition_root = true)",
        "for tables in schema other",
        "for table t, other.o",
        "for table t (id), r (id) where (id > 3) with (publish_via_partition_root = true)",
        "for table r, m, other.l with (publish_via_partition_root = true)",
        "for table r, m",
        "for table s, m (id) where (id > 12)",
        "for table s with (publish_via_partition_root = true)",
        "for table other.o where (id > 1), tables in schema other",
        "for table parent",
        "for table only parent",
        "",
        *(["for table t with (publish_generated_columns = stored)", "for table t (id, g)"] * new),
    ]
    for number, which in enumerate(many):
        database.execute(f"create publication p{number} {which}")
    said = (
        "select p.pubname, n.nspname || '.' || c.relname, (select array_agg(a order by a) from unnest(p.attnames::text[]) a), p.rowfilter"
        " from pg_publication_tables p join pg_namespace n on n.nspname = p.schemaname"
        " join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename"
    )
    expected = {(pub, name): (columns, condition) for pub, name, columns, condition in database.fetch(said)}
    for number, which in enumerate(many):
        pub = f"p{number}"
        names = dict(database.fetch("select c.oid, c.relnamespace::regnamespace || '.' || c.relname from pg_class c"))
        sent = {names[oid]: oid for oid in slot.published(connection, pub)}
        assert set(sent) == {name for one, name in expected if one == pub}, which
        for row in connection.execute(QUERIES["narrowed"], {"publication": pub, "oids": list(sent.values())}):
            columns, condition = expected[pub, names[row[0]]]
            generated = {"g"} - (
                set(columns) if new else set()
            )  # before 18 the view of PostgreSQL 15 has it, and it does not come
            assert (sorted(row[1]), row[2]) == (sorted(set(columns) - generated), condition), which
    with database.connect() as other:
        other.execute("begin; lock table t, other.o, r, parent in access exclusive mode")
        connection.execute("set lock_timeout = '2s'")
        tables = {table.oid: table for table in catalog.read_tables(connection, lambda _: True, "p1")}
        assert catalog.look(connection, tables.keys(), "p1").keys() == tables.keys()
        assert slot.published(connection, "p0")
        other.execute("rollback")


@pytest.mark.pg_all
def test_what_is_sent_by_a_publication_that_is_gone(connection: Connection) -> None:
    with pytest.raises(PublicationError, match="does not exist"):
        slot.published(connection, "gone")
