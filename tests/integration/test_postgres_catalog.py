"""What the catalog says about tables, in every shape they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penstock.postgres import catalog
from penstock.table import ReplicaIdentity, TypeKind

if TYPE_CHECKING:
    from tests.fix_postgres import Database

    from penstock.postgres.connection import Connection
    from penstock.table import Table


def read(connection: Connection) -> dict[str, Table]:
    return {table.full_name: table for table in catalog.read_tables(connection, lambda _: True)}


@pytest.mark.pg_all
def test_columns_and_types(database: Database, connection: Connection) -> None:
    database.execute(
        "create schema odd",
        "create type odd.mood as enum ('a', 'b')",
        "create type odd.uuid as enum ('not one')",
        "create type pair as (a int, b text)",
        "create domain amount as numeric(10, 2) not null",
        "create domain amounts as amount[]",
        "create domain grid as int[][]",
        """create table t (
            id bigint primary key, gone int, mood odd.mood, u odd.uuid, n numeric(12, 3), a text[][], amount amount, amounts amounts,
            grid grid, pair pair, r int4range, v varchar(20) not null, c char(3), iv int2vector, j jsonb, ts timestamp(3) with time zone,
            g int generated always as (1) stored, untyped int[])""",
        "alter table t drop column gone",
        "alter table t alter column v set storage plain",
    )
    table = read(connection)["public.t"]
    assert [column.name for column in table.columns] == (
        ["id", "mood", "u", "n", "a", "amount", "amounts", "grid", "pair", "r", "v", "c", "iv", "j", "ts", "untyped"]
    )
    assert [column.number for column in table.columns][:3] == [1, 3, 4]
    assert table.left_out == ("g",)
    shown = {column.name: (column.type.base.name, column.type.sql, column.type.kind) for column in table.columns}
    assert shown["id"] == ("int8", "bigint", TypeKind.BASE)
    assert shown["mood"] == ("mood", "odd.mood", TypeKind.ENUM)
    assert shown["u"] == ("odd.uuid", "odd.uuid", TypeKind.ENUM)  # is not taken for PostgreSQL's uuid
    assert shown["n"] == ("numeric", "numeric(12,3)", TypeKind.BASE)
    assert shown["a"] == ("_text", "text[]", TypeKind.ARRAY)
    assert shown["amount"] == ("numeric", "public.amount", TypeKind.DOMAIN)
    assert shown["pair"][2] is TypeKind.COMPOSITE
    assert shown["r"][2] is TypeKind.RANGE
    assert shown["c"] == ("bpchar", "character(3)", TypeKind.BASE)
    assert shown["iv"] == ("int2vector", "int2vector", TypeKind.BASE)
    assert shown["ts"] == ("timestamptz", "timestamp(3) with time zone", TypeKind.BASE)

    amounts = table.column("amounts").type.base
    assert amounts.inner is not None
    assert (amounts.kind, amounts.inner.kind, amounts.inner.base.sql) == (
        TypeKind.ARRAY,
        TypeKind.DOMAIN,
        "numeric(10,2)",
    )
    dimensions = {column.name: column.dimensions for column in table.columns if column.dimensions}
    assert dimensions == {"a": 2, "amounts": 1, "grid": 2, "untyped": 1}
    # v: what was stored out of line before SET STORAGE PLAIN still is
    unchanged = {column.name for column in table.columns if column.may_be_unchanged}
    assert unchanged == {"n", "a", "amount", "amounts", "grid", "pair", "r", "v", "c", "j", "untyped"}
    assert {column.name for column in table.columns if column.not_null} == {"id", "v"}


def test_a_domains_not_null_is_no_promise(database: Database, connection: Connection) -> None:
    database.execute(
        "create domain d as int not null",
        "create table t (id int primary key, x d)",
        "insert into t values (1, (select x from t where false))",  # PostgreSQL manual, CREATE DOMAIN, Notes
    )
    assert database.fetch("select x is null from t") == [(True,)]
    assert not read(connection)["public.t"].column("x").not_null


@pytest.mark.pg(">= 18")
def test_not_null_that_is_not_valid(database: Database, connection: Connection) -> None:
    database.execute(
        "create table t (a int, b int)",
        "insert into t values (null, null)",
        "alter table t add constraint n not null a not valid",
        "create table v (a int generated always as (1) virtual, b int)",
    )
    assert not read(connection)["public.t"].column("a").not_null
    assert read(connection)["public.v"].left_out == ("a",)


@pytest.mark.pg_all
def test_keys_and_identities(database: Database, connection: Connection) -> None:
    database.execute(
        "create table plain (b int, a int, c text, primary key (a, b))",
        "create table deferred (id int primary key deferrable)",
        "create table by_index (id int primary key, x int not null, y int not null, z text)",
        "create unique index other on by_index (y, x) include (z)",
        "alter table by_index replica identity using index other",
        "create table lost_index (id int primary key, x int not null unique)",
        "alter table lost_index replica identity using index lost_index_x_key",
        "alter table lost_index drop constraint lost_index_x_key",
        "create table whole (a int, b text)",
        "alter table whole replica identity full",
        "create table keyed_whole (a int primary key, b text)",
        "alter table keyed_whole replica identity full",
        "create table none (a int primary key)",
        "alter table none replica identity nothing",
        "create table bare (a int)",
        "create table empty ()",
    )
    seen = {name: (table.key, table.identity) for name, table in read(connection).items()}
    assert seen == {
        "public.plain": (("a", "b"), ("b", "a")),
        "public.deferred": ((), ()),
        "public.by_index": (("y", "x"), ("x", "y")),
        "public.lost_index": ((), ()),
        "public.whole": ((), ("a", "b")),
        "public.keyed_whole": (("a",), ("a", "b")),
        "public.none": (("a",), ()),
        "public.bare": ((), ()),
        "public.empty": ((), ()),
    }
    assert read(connection)["public.by_index"].replica_identity is ReplicaIdentity.INDEX


@pytest.mark.pg_all
def test_partitions_belong_to_their_root(database: Database, connection: Connection) -> None:
    database.execute(
        'create schema "we.ird"',
        'create table "we.ird"."p""t 🐘" (id int, k int, b text, primary key (id, k)) partition by range (k)',
        'create table p1 partition of "we.ird"."p""t 🐘" for values from (0) to (10) partition by range (id)',
        "create table p11 partition of p1 for values from (0) to (100)",
        "create table p2 (extra int, b text, k int not null, id int not null)",
        "alter table p2 drop column extra",
        'alter table "we.ird"."p""t 🐘" attach partition p2 for values from (10) to (20)',
        "insert into p2 values ('x', 11, 1)",
        "create table childless (id int primary key) partition by hash (id)",
        "create table parent (id int primary key)",
        "create table child (more text) inherits (parent)",
    )
    tables = read(connection)
    assert set(tables) == {'we.ird.p"t 🐘', "public.childless", "public.parent", "public.child"}
    root = tables['we.ird.p"t 🐘']
    assert root.partitioned
    assert [(leaf.name, leaf.column_names) for leaf in root.leaves] == [
        ("p11", ("id", "k", "b")),
        ("p2", ("b", "k", "id")),
    ]
    assert (root.key, root.identity) == (("id", "k"), ("id", "k"))
    assert root.estimated_bytes > 0
    assert root.estimated_rows > 0
    assert tables["public.childless"].partitioned
    assert tables["public.childless"].leaves == ()
    assert [column.name for column in tables["public.child"].columns] == ["id", "more"]
    assert tables["public.child"].key == ()
    assert catalog.read_tables(connection, lambda name: name == "public.parent")[0].full_name == "public.parent"


def test_leaves_decide_what_an_old_tuple_holds(database: Database, connection: Connection) -> None:
    def identity(root: str, *leaves: str) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
        database.execute(f"alter table r replica identity {root}")
        for number, leaf in enumerate(leaves):
            database.execute(f"alter table l{number} replica identity {leaf}")
        table = read(connection)["public.r"]
        return table.key, table.identity, table.old_is_full

    database.execute(
        "create table r (id int primary key, x int not null, y text) partition by range (id)",
        "create table l0 partition of r for values from (0) to (10)",
        "create table l1 partition of r for values from (10) to (20)",
        "create unique index on l1 (x)",
    )
    assert identity("full", "full", "full") == (("id",), ("id", "x", "y"), True)
    assert identity("full", "full", "default") == (("id",), ("id",), False)
    assert identity("default", "full", "full") == (("id",), ("id", "x", "y"), False)
    assert identity("default", "default", "using index l1_x_idx") == (
        (),
        (),
        False,
    )  # a delete from l1 does not say which id


def test_what_is_no_table(database: Database, connection: Connection) -> None:
    database.execute(
        "create unlogged table u (id int primary key)",
        "create view v as select 1",
        "create materialized view m as select 1",
        "create extension file_fdw",
        "create server files foreign data wrapper file_fdw",
        "create foreign table f (id int) server files options (filename '/dev/null')",
        "create table r (id int) partition by range (id)",
        "create foreign table fp partition of r for values from (0) to (1) server files options (filename '/dev/null')",
        "create table t (id int)",
    )
    connection.execute("create temp table mine (id int)")
    tables = read(connection)
    assert set(tables) == {"public.r", "public.t"}
    assert tables["public.r"].leaves == ()


def test_estimates(database: Database, connection: Connection) -> None:
    database.execute("create table t as select g as id, repeat('x', 50) as text from generate_series(1, 10000) g")
    assert 5000 < read(connection)["public.t"].estimated_rows < 20000  # nobody has analyzed it
    database.execute("analyze t")
    assert read(connection)["public.t"].estimated_rows == 10000
    database.execute("delete from t where id > 5000", "vacuum t", "insert into t select from generate_series(1, 100)")
    assert 4000 < read(connection)["public.t"].estimated_rows < 6500
