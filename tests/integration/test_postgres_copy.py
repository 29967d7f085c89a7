"""Parts and single rows: every row exactly once, whatever the key's type, and never a row from storage that is gone."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.fix_postgres import until

from penstock.config import Source
from penstock.errors import Retry, SourceRefusedError, SourceUnavailableError
from penstock.postgres import catalog, copy, parts, slot, wire
from penstock.postgres.connection import Connector
from penstock.postgres.copy import FilenodeChangedError, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.fix_postgres import Database
    from tests.fix_proxy import Proxy

    from penstock.postgres.connection import Connection
    from penstock.table import Table


def table_named(connection: Connection, name: str) -> Table:
    (table,) = catalog.read_tables(connection, lambda each: each == name)
    return table


def names_of(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def rows_of(connector: Connector, table: Table, planned: Sequence[Part], *, snapshot: str | None = None) -> list[bytes]:
    """The rows of all parts; a chunk holds whole rows."""
    rows: list[bytes] = []
    for part in planned:
        for chunk in copy.read_part(connector, part, table, names_of(table), snapshot=snapshot):
            assert not chunk or chunk.endswith(b"\n")
            rows += chunk.splitlines()
    return rows


def plan(connection: Connection, table: Table, part_rows: int) -> list[Part]:
    planned = copy.plan_parts(connection, table, names_of(table), part_rows=part_rows)
    assert [part.index for part in planned] == list(range(len(planned)))
    assert [Part.from_json(part.to_json()) for part in planned] == planned
    return planned


@pytest.mark.pg_all
def test_every_row_exactly_once(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute(
        "create table t (id bigint primary key, v text)",
        "insert into t select g, repeat('x', g % 100) from generate_series(1, 20000) g",
        "delete from t where id between 3000 and 9000",
    )
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 2000)
    assert {part.kind for part in planned} == {"ctid" if database.server.version >= 14 else "key"}
    assert 5 < len(planned) < 30
    rows = rows_of(connector, table, planned)
    assert len(rows) == len(set(rows)) == 13999
    database.execute(
        "insert into t select g, 'late' from generate_series(20001, 40000) g"
    )  # the last part is open-ended
    assert len(rows_of(connector, table, planned)) == 33999


@pytest.mark.pg_all
def test_empty_single_and_columnless(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute(
        "create table empty (id int primary key)",
        "create table single (id int primary key)",
        "insert into single values (1)",
        "create table columnless ()",
        "insert into columnless default values",
        "create table childless (id int) partition by range (id)",
    )
    for name, expected in (("empty", []), ("single", [b"1"]), ("columnless", [b""])):
        table = table_named(connection, f"public.{name}")
        for part_rows in (1, 1000):
            planned = plan(connection, table, part_rows)
            assert rows_of(connector, table, planned) == expected
        assert [part.kind for part in planned] == ["whole"]
    assert plan(connection, table_named(connection, "public.childless"), 10) == []


KEYS = {
    "bigint": "g::bigint - 3000",
    "text": "case when g % 3 = 0 then 'ü''\\\"' || E'\\t\\n' || g when g % 3 = 1 then 'A' || g else 'a' || g end",
    "public.citext": "'Key' || g",
    "uuid": "md5(g::text)::uuid",
    "numeric(20,4)": "g / 7.0",
    "timestamptz": "timestamptz '2024-01-01' + g * interval '1 h'",
    "date": "date '2024-01-01' + g",
    "double precision": "case when g = 1 then 'NaN'::float8 when g = 2 then '-Infinity' else g / 3.0 end",
    "bytea": "decode(md5(g::text), 'hex')",
    "interval": "g * interval '7 minutes'",
    "inet": "inet '10.0.0.0' + g",
    "int4range": "int4range(g, g + 5)",
    "char(12)": "'k' || g",
    "public.tree": "('a.b' || g)::public.ltree",
    "public.code": "'c' || g",
    "int[]": "array[g, g + 1]",
    "boolean": "g = 1",
}
ROWS = {"boolean": 2}


@pytest.mark.pg_all
@pytest.mark.parametrize("statistics", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_key_ranges_of_every_type(
    database: Database, connection: Connection, connector: Connector, monkeypatch: pytest.MonkeyPatch, statistics: bool
) -> None:
    """As on 12 and 13, and for table access methods other than heap: with statistics, and from a sample without."""
    monkeypatch.setattr(parts, "TID_RANGES_SINCE", 99_00_00)
    database.execute(
        "create extension citext",
        "create extension ltree",
        "create domain tree as ltree",
        "create domain code as varchar(20) check (value <> '')",
    )
    for number, (kind, value) in enumerate(KEYS.items()):
        name = f"t{number}"
        count = ROWS.get(kind, 6000)
        database.execute(
            f'create table {name} ("k.e""y" {kind} primary key, v text)',
            f"insert into {name} select {value}, 'row ' || g from generate_series(1, {count}) g",
        )
        if statistics:
            database.execute(f"analyze {name}")
        table = table_named(connection, f"public.{name}")
        planned = plan(connection, table, 500)
        rows = rows_of(connector, table, planned)
        assert len(rows) == len(set(rows)) == count, kind
        if kind not in ("boolean", "int[]"):
            assert len(planned) > 5, kind
            assert {part.kind for part in planned} == {"key"}


def test_a_key_whose_first_column_repeats(
    database: Database, connection: Connection, connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "TID_RANGES_SINCE", 99_00_00)
    database.execute(
        "create table t (tenant int, id int, primary key (tenant, id))",
        "insert into t select g % 3, g from generate_series(1, 10000) g",
        "analyze t",
    )
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 1000)
    assert 1 < len(planned) <= 4
    rows = rows_of(connector, table, planned)
    assert len(rows) == len(set(rows)) == 10000


def test_parts_of_a_table_without_key(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute("create table t as select g from generate_series(1, 10000) g", "insert into t select g from t")
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 1000)
    assert (len(planned) > 5) == (database.server.version >= 14)
    assert len(rows_of(connector, table, planned)) == 20000


@pytest.mark.pg_all
def test_partitions_and_children(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute(
        "create table r (id int, k int, b text) partition by range (k)",
        'create table "l.0" partition of r for values from (0) to (10) partition by range (id)',
        'create table "l""00" partition of "l.0" for values from (0) to (100)',
        "create table l1 (b text, gone int, k int, id int)",
        "alter table l1 drop column gone",
        "alter table r attach partition l1 for values from (10) to (20)",
        "insert into r values (1, 1, 'one'), (2, 11, 'two')",
        "create table parent (id int primary key)",
        "create table child () inherits (parent)",
        "insert into parent values (1)",
        "insert into child values (2)",
    )
    table = table_named(connection, "public.r")
    planned = plan(connection, table, 10)
    assert {part.relation for part in planned} == {leaf.oid for leaf in table.leaves}
    assert sorted(rows_of(connector, table, planned)) == [b"1\t1\tone", b"2\t11\ttwo"]
    for name, row in (("parent", b"1"), ("child", b"2")):
        table = table_named(connection, f"public.{name}")
        assert rows_of(connector, table, plan(connection, table, 10)) == [row]


def test_odd_names_and_texts(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute(
        'create schema "s.c""h 🐘"',
        'create table "s.c""h 🐘"."t%s.{x}" ("id%s" int primary key, "select" text, "🐘" bytea)',
        r"""insert into "s.c""h 🐘"."t%s.{x}" values (1, E'a\tb\nc\\d', '\x00ff'), (2, null, null), (3, '', '')""",
    )
    table = table_named(connection, 's.c"h 🐘.t%s.{x}')
    assert rows_of(connector, table, plan(connection, table, 10)) == [
        rb"1	a\tb\nc\\d	\\x00ff",
        rb"2	\N	\N",
        b"3\t\t\\\\x",
    ]
    found = copy.read_rows(connection, table, ["🐘", "select"], [(b"1",), (b"2",), (b"9",)])
    assert found == {(b"1",): (rb"\x00ff", b"a\tb\nc\\d"), (b"2",): (None, None)}


@pytest.mark.parametrize("compiled", [True, False])
def test_a_row_larger_than_a_chunk(
    database: Database, connection: Connection, connector: Connector, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    if not compiled:
        monkeypatch.setattr(wire, "_compiled", None)
    assert compiled == (wire._compiled is not None)
    database.execute(
        "create table t (id int primary key, v text)", "insert into t values (1, repeat('é', 10000000)), (2, 'x')"
    )
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 1000)
    chunks = [chunk for chunk in copy.read_part(connector, planned[0], table, ["id", "v"]) if chunk]
    assert len(b"".join(chunks)) == len("1\t\n2\tx\n") + 20_000_000
    assert len(chunks) == 2


def test_wide_tables_are_cut_by_bytes(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST_PART_BYTES", 1 << 20)
    database.execute(
        "create table t (id int primary key, v text)",
        "alter table t alter v set storage external",
        "insert into t select g, repeat('x', 4000) from generate_series(1, 2000) g",
    )
    planned = plan(connection, table_named(connection, "public.t"), 1_000_000)
    assert len(planned) >= 8 if database.server.version >= 14 else len(planned) >= 2


# Attacks


@pytest.mark.pg_all
def test_a_rewrite_between_planning_and_reading(
    database: Database, connection: Connection, connector: Connector
) -> None:
    database.execute(
        "create table t (id int primary key, v int)", "insert into t select g, g from generate_series(1, 1000) g"
    )
    for statement in (
        "vacuum full t",
        "cluster t using t_pkey",
        "truncate t",
        "alter table t alter v type bigint",
        "drop table t",
    ):
        table = table_named(connection, "public.t")
        planned = plan(connection, table, 1_000_000)
        assert rows_of(connector, table, planned) is not None
        database.execute(statement)
        with pytest.raises(FilenodeChangedError, match=r"public\.t was rewritten") as caught:
            rows_of(connector, table, planned)
        assert caught.value.retry is Retry.NEVER


def test_a_rewrite_while_the_lock_is_awaited(database: Database, connection: Connection, connector: Connector) -> None:
    """The comparison comes after the lock: whoever held it may have rewritten the table."""
    database.execute("create table t (id int primary key)", "insert into t values (1)")
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 10)
    with database.connect() as other:
        other.execute("begin")
        other.execute("truncate t")
        other.execute("insert into t values (2)")
        reading = copy.read_part(connector, planned[0], table, ["id"])
        with ThreadPoolExecutor(1) as pool:
            read = pool.submit(list, reading)
            until(lambda: database.fetch("select from pg_locks where not granted and relation = 't'::regclass"))
            other.execute("commit")
            with pytest.raises(FilenodeChangedError):
                read.result(20)


def test_a_rename_is_no_rewrite(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute("create table t (id int primary key)", "insert into t values (1)")
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 10)
    database.execute(
        "create schema other", "alter table t rename to u", "alter table u set schema other", "create table t (id int)"
    )
    assert rows_of(connector, table, planned) == [b"1"]


def test_a_locked_table(
    database: Database, connection: Connection, connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "LOCK_TIMEOUT", "50ms")
    database.execute("create table t (id int primary key)")
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 10)
    with database.connect() as other, other.transaction():
        other.execute("lock table t")
        with pytest.raises(SourceUnavailableError, match=r"reading part 0 of public\.t") as caught:
            rows_of(connector, table, planned)
        assert "locked" in caught.value.hint


def test_abandoned_parts_leave_nothing_behind(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute("create table t as select g as id, repeat('x', 1000) as v from generate_series(1, 20000) g")
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 1_000_000)
    reading = copy.read_part(connector, planned[0], table, ["id", "v"])
    with contextlib.closing(reading):
        assert 1 << 20 <= len(next(reading)) < 2 << 20
    others = "select from pg_stat_activity where application_name = 'penstock test' and datname = current_database() and pid <> %s"
    until(lambda: not database.fetch(others, connection.info.backend_pid))


@pytest.mark.parametrize("where", [100_000, 3_000_000])
def test_cut_within_a_part(
    database: Database, connection: Connection, proxy_to: Callable[[int], Proxy], where: int
) -> None:
    database.execute("create table t as select g as id, repeat('x', 1000) as v from generate_series(1, 20000) g")
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 1_000_000)
    proxy = proxy_to(database.server.port)
    connector = Connector(Source(dsn=database.server.dsn(database.name, port=proxy.port)), "t")
    proxy.cut_after_bytes = where
    with pytest.raises(SourceUnavailableError, match=r"reading part 0 of public\.t"):
        rows_of(connector, table, planned)
    assert len(rows_of(connector, table, planned)) == 20000


def test_an_error_within_a_part(database: Database, connection: Connection, connector: Connector) -> None:
    """COPY that fails half-way raises: a part without its last rows is never taken for whole."""
    database.execute("create table t as select g as id, repeat('x', 1000) as v from generate_series(1, 20000) g")
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 1_000_000)
    reading = copy.read_part(connector, planned[0], table, ["id", "v"])
    next(reading)
    database.execute(
        f"select pg_cancel_backend(pid) from pg_stat_activity where datname = '{database.name}' "
        f"and application_name = 'penstock test' and pid <> {connection.info.backend_pid}"
    )
    with pytest.raises(SourceUnavailableError):
        for _ in reading:
            pass


def test_privileges_and_row_security(database: Database, connection: Connection, role: Callable[..., str]) -> None:
    name = role()
    database.execute(
        "create table t (id int primary key)",
        "insert into t values (1)",
        "create table s (id int primary key)",
        "alter table s enable row level security",
        f"grant select on s to {name}",
    )
    connector = Connector(Source(dsn=database.server.dsn(database.name, user=name)), "t")
    for each, hint in (("t", "GRANT SELECT"), ("s", "BYPASSRLS")):
        table = table_named(connection, f"public.{each}")
        with pytest.raises(SourceRefusedError) as caught:
            rows_of(connector, table, plan(connection, table, 10))
        assert hint in caught.value.hint


# Under a snapshot


@pytest.mark.pg_all
def test_all_parts_see_one_snapshot(database: Database, connection: Connection, connector: Connector) -> None:
    database.execute(
        "create table t (id int primary key, v int)", "insert into t select g, 0 from generate_series(1, 5000) g"
    )
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 500)
    with slot.exported_snapshot(connector) as (snapshot, _):
        database.execute("update t set v = 1", "delete from t where id < 100", "insert into t values (9999, 1)")
        rows = rows_of(connector, table, planned, snapshot=snapshot)
        assert len(rows) == 5000
        assert all(row.endswith(b"\t0") for row in rows)
        database.execute("vacuum full t")
        with pytest.raises(FilenodeChangedError):  # would read no rows, without an error
            rows_of(connector, table, planned, snapshot=snapshot)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("alter table t drop column v", copy.ColumnsChangedError),
        ("alter table t rename column v to w", copy.ColumnsChangedError),
        ("alter table t alter v type text", copy.ColumnsChangedError),
        ("alter table t alter at type timestamptz", copy.ColumnsChangedError),  # in UTC without a new heap
        ("alter table t alter v type text using v || '!'", FilenodeChangedError),
        (
            "alter table t rename to u; create table t (id int primary key, v varchar(9), at timestamp)",
            FilenodeChangedError,
        ),
        ("alter table t add column x int", None),
    ],
)
def test_a_change_after_the_snapshot_is_noticed(
    database: Database, connection: Connection, connector: Connector, change: str, error: type[Exception] | None
) -> None:
    """The snapshot shows the catalog as it was, and yet PostgreSQL reads by what it is."""
    database.execute(
        "create table t (id int primary key, v varchar(9), at timestamp)", "insert into t values (1, 'a', '2001-02-03')"
    )
    connection.execute("set timezone = 'UTC'")
    table = table_named(connection, "public.t")
    planned = plan(connection, table, 10)
    with slot.exported_snapshot(connector) as (snapshot, _):
        with database.connect(options="-c TimeZone=UTC") as other:
            other.execute(change)  # type: ignore[call-overload]
        if error is None:
            assert rows_of(connector, table, planned, snapshot=snapshot) == [b"1\ta\t2001-02-03 00:00:00"]
        else:
            with pytest.raises(error):
                rows_of(connector, table, planned, snapshot=snapshot)


# Single rows


@pytest.mark.pg_all
def test_rows_are_found_by_the_text_of_their_key(database: Database, connection: Connection) -> None:
    database.execute(
        "create extension citext",
        "create table t (b public.citext, a numeric(10,2), f float8, v text, w bytea, primary key (f, b, a))",
        r"""insert into t values (E'Q\t''"\\', 1.5, 0.1, repeat('é', 1000000), '\xff')""",
        "insert into t values ('x', 2, 'NaN', null, ''), ('y', 3, '-0', 'z', null)",
    )
    table = table_named(connection, "public.t")
    assert table.key == ("f", "b", "a")
    odd = b"Q\t'\"\\"
    asked = [(b"0.1", odd, b"1.50"), (b"NaN", b"X", b"2.00"), (b"-0", b"y", b"3.00"), (b"7", b"no", b"1.00")]
    found = copy.read_rows(connection, table, ["w", "v"], asked)
    assert found == {
        asked[0]: (rb"\xff", "é".encode() * 1_000_000),
        asked[1]: (rb"\x", None),
        asked[2]: (None, b"z"),
    }
    assert copy.read_rows(connection, table, ["v"], []) == {}


def test_many_rows_and_every_type(database: Database, connection: Connection, connector: Connector) -> None:
    """A row's text is the same whether it was copied or read again."""
    database.execute(
        "create extension citext",
        "create extension ltree",
        "create domain tree as ltree",
        "create domain code as varchar(20)",
    )
    for number, (kind, value) in enumerate(KEYS.items()):
        database.execute(
            f"create table t{number} (k {kind} primary key, v {kind})",
            f"insert into t{number} select {value}, {value} from generate_series(1, {ROWS.get(kind, 2500)}) g",
        )
        with connection.cursor() as cursor:
            cursor.execute(f"select k, v from public.t{number}")  # type: ignore[call-overload]
            answer = cursor.pgresult
        assert answer is not None
        truth = {(answer.get_value(row, 0),): (answer.get_value(row, 1),) for row in range(answer.ntuples)}
        table = table_named(connection, f"public.t{number}")
        assert copy.read_rows(connection, table, ["v"], list(truth)) == truth, kind  # type: ignore[arg-type]


def test_a_partitioned_row_is_found_in_whatever_leaf(database: Database, connection: Connection) -> None:
    database.execute(
        "create table r (id int primary key, v text) partition by range (id)",
        "create table l0 partition of r for values from (0) to (10)",
        "create table l1 (v text, id int not null)",
        "alter table r attach partition l1 for values from (10) to (20)",
        "insert into r values (1, 'a'), (11, 'b')",
    )
    found = copy.read_rows(connection, table_named(connection, "public.r"), ["v"], [(b"1",), (b"11",), (b"12",)])
    assert found == {(b"1",): (b"a",), (b"11",): (b"b",)}


def test_a_database_without_an_encoding(postgres: object, connection: Connection, database: Database) -> None:
    """SQL_ASCII: a text need not be UTF-8, and comes through byte by byte."""
    with database.server.connect() as admin:
        admin.execute(f"create database {database.name}_ascii encoding 'SQL_ASCII' template template0")  # type: ignore[call-overload]
    connector = Connector(Source(dsn=database.server.dsn(f"{database.name}_ascii")), "t")
    try:
        with contextlib.closing(connector.connect()) as ascii_:
            ascii_.execute("create table public.t (k text primary key, v text)")
            ascii_.execute(
                r"insert into public.t values (convert_from('\xff27', 'SQL_ASCII'), convert_from('\xfe', 'SQL_ASCII'))"
            )
            table = table_named(ascii_, "public.t")
            assert rows_of(connector, table, plan(ascii_, table, 10)) == [b"\xff'\t\xfe"]
            assert copy.read_rows(ascii_, table, ["v"], [(b"\xff'",)]) == {(b"\xff'",): (b"\xfe",)}
    finally:
        with database.server.connect() as admin:
            admin.execute(f"drop database {database.name}_ascii")  # type: ignore[call-overload]
