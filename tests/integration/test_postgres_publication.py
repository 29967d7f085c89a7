"""Publications: made and extended where they are ours, read only where they were given."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from penstock.config import Source
from penstock.errors import PublicationError, SourceChangedError, SourceRefusedError
from penstock.postgres import catalog, slot
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Callable

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
