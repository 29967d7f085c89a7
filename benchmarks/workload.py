"""The data: tables and streams of changes, made inside PostgreSQL and the same in every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

    from benchmarks.scale import Scale

NARROW = {  # column: type, value of row i
    "id": ("bigint primary key", "i"),
    "customer_id": ("integer not null", "(i * 7919 % 100003)::int"),
    "quantity": ("smallint not null", "(i % 97)::smallint"),
    "price": ("numeric(12,2) not null", "(i % 1000000)::numeric / 100"),
    "paid": ("boolean not null", "i % 3 = 0"),
    "state": ("text not null", "(array['new', 'paid', 'shipped', 'returned'])[1 + i % 4]"),
    "created_at": ("timestamptz not null", "timestamptz '2024-01-01 00:00:00+00' + i * interval '1.25 seconds'"),
    "shipped_on": ("date", "case when i % 4 <> 0 then date '2024-01-01' + (i % 365)::int end"),
    "weight": ("double precision not null", "(i % 100003) / 16.0::float8"),
    "note": ("text", "case when i % 5 <> 0 then 'note ' || i * 31 % 65536 end"),
}
_CYCLE = (
    ("integer not null", "(i * {n} % 1000003)::int"),
    ("bigint not null", "i * {n}"),
    ("double precision", "(i % 10007) / {n}.0::float8"),
    ("numeric(10,2)", "(i * {n} % 1000000)::numeric / 100"),
    ("text", "'value ' || i * {n} % 65536"),
    ("timestamptz", "timestamptz '2024-01-01 00:00:00+00' + (i % 1000000) * interval '{n} seconds'"),
    ("boolean", "i % {n} = 0"),
    ("date", "date '2024-01-01' + (i * {n} % 3650)::int"),
    ("smallint", "(i * {n} % 32000)::smallint"),
    ("text", "case when i % 3 <> 0 then 'word' end"),
)
WIDE = {"id": ("bigint primary key", "i")} | {
    f"c{n}": (_CYCLE[n % len(_CYCLE)][0], _CYCLE[n % len(_CYCLE)][1].format(n=n)) for n in range(1, 40)
}
TEXT = {
    "id": ("bigint primary key", "i"),
    "title": ("text not null", "'document ' || i"),
    "body": ("text not null", "lpad(i::text, 16, '0') || substr(body, 17)"),
}
_BODIES = """
    create temporary table bodies on commit drop as
    select k, (select string_agg(md5(k || '-' || j), '' order by j) from generate_series(1, 128) j) body from generate_series(0, 499) k
"""
CHANGED = "changed"  # the table that streams change: narrow's columns
UPDATED = {  # the table of which every row is updated; a long body is stored out of line, and no update sends it
    "id": ("bigint primary key", "i"),
    "quantity": ("integer not null", "(i % 97)::int"),
    "state": ("text not null", "'new'"),
    "body": ("text not null", "case when i % 100 < {share} then left(body, 2500) else 'short' end"),
}
_SUMMED = {CHANGED: "sum(quantity)", "narrow": "sum(quantity)", "updated": "sum(quantity + length(body))"}
SILENT_ROUNDS = 20  # rounds of the mix before its first delete


def table_names() -> tuple[str, ...]:
    """The tables to copy."""
    return "narrow", "wide", "text4k"


def create_tables(connection: psycopg.Connection, scale: Scale) -> None:
    """Make and fill the tables, and leave them as a vacuum leaves them, so that no reader pays for the first reading."""
    sources = {
        "narrow": (NARROW, scale.narrow_rows, ""),
        "wide": (WIDE, scale.wide_rows, ""),
        "text4k": (TEXT, scale.text_rows, " join bodies on k = i % 500"),
    }
    for name, (columns, rows, join) in sources.items():
        with connection.transaction():
            connection.execute(_BODIES if join else "select 1")
            connection.execute(f"create table {name} ({_definition(columns)})")
            connection.execute(
                f"insert into {name} select {_values(columns)} from generate_series(1::bigint, {rows}) i{join} order by i"
            )
        connection.execute(f"vacuum (freeze, analyze) {name}")
    connection.execute(f"create table {CHANGED} ({_definition(NARROW)})")
    connection.execute(f"create table updated ({_definition(UPDATED)})")
    connection.execute("alter table updated alter body set storage external")
    connection.execute("checkpoint")


def empty_changed(connection: psycopg.Connection) -> None:
    """Begin a stream anew."""
    connection.execute(f"truncate {CHANGED}")
    connection.execute(f"vacuum (freeze, analyze) {CHANGED}")
    connection.execute("checkpoint")


def insert_rows(first: int | str, last: int | str) -> str:
    """The statement that inserts rows ``first`` to ``last`` into the changed table; SQL expressions will do."""
    return f"insert into {CHANGED} select {_values(NARROW)} from generate_series({first}::bigint, {last}::bigint) i"


@dataclass(frozen=True, slots=True)
class Stream:
    """Changes of the changed table, which is empty before. ``last_id`` is inserted by the last transaction."""

    name: str
    title: str
    statement: str
    changes: int
    last_id: int

    def make(self, connection: psycopg.Connection) -> None:
        """Make the changes."""
        connection.execute("set enable_seqscan = off")  # planned while the table is empty
        connection.execute(self.statement.encode())


def streams(scale: Scale) -> tuple[Stream, ...]:
    """The streams that are measured."""
    rows, size = scale.changes, scale.rows_per_transaction
    return (
        Stream("inserts", f"inserts, {size:,} a transaction", _inserts(rows, size), rows, rows),
        one_transaction(rows),
        _mix(rows),
    )


def one_transaction(rows: int) -> Stream:
    """All inserts at once."""
    return Stream("one", "inserts, one transaction", insert_rows(1, rows), rows, rows)


def _inserts(rows: int, size: int) -> str:
    return f"""
        do $$ begin
            for n in 0 .. {rows // size - 1} loop
                {insert_rows(f"n * {size} + 1", f"(n + 1) * {size}")};
                commit;
            end loop;
        end $$"""


def _mix(changes: int) -> Stream:
    """Rounds of 6 inserts, 3 updates of an earlier round's rows and 1 delete; 10 rounds a transaction.

    Updates choose among rows that are never deleted (ids with remainder 1 to 3), so every change finds its row; only the
    first rounds have nothing to update or to delete yet.
    """
    rounds = changes // 10
    statement = f"""
        do $$ declare
            earlier bigint;
        begin
            for n in 0 .. {rounds - 1} loop
                {insert_rows("n::bigint * 6 + 1", "n::bigint * 6 + 6")};
                if n > 0 then
                    earlier := (hashint8(n) & 2147483647) % n * 6;
                    update {CHANGED} set quantity = (n % 97)::smallint, state = 'paid', price = price + 1
                    where id in (earlier + 1, earlier + 2, earlier + 3);
                end if;
                if n >= {SILENT_ROUNDS} then
                    delete from {CHANGED} where id = (n - {SILENT_ROUNDS})::bigint * 6 + 6;
                end if;
                if n % 10 = 9 or n = {rounds - 1} then
                    commit;
                end if;
            end loop;
        end $$"""
    made = rounds * 6 + (rounds - 1) * 3 + max(0, rounds - SILENT_ROUNDS)
    return Stream("mix", "60 % inserts, 30 % updates, 10 % deletes, 100 a transaction", statement, made, rounds * 6)


@dataclass(frozen=True, slots=True)
class Updates:
    """Updates of every row of ``updated``, twice; of so many in a hundred the long body stays as it is. Keys change with ``moving``."""

    name: str
    share: int = 0
    moving: bool = False

    def fill(self, connection: psycopg.Connection, rows: int) -> None:
        """Make the rows."""
        values = _values(UPDATED).format(share=self.share)
        with connection.transaction():
            connection.execute(_BODIES)
            connection.execute("truncate updated")
            connection.execute(
                f"insert into updated select {values} from generate_series(1::bigint, {rows}) i"
                " join bodies on k = i % 500 order by i"
            )
        connection.execute("vacuum (freeze, analyze) updated")
        connection.execute("checkpoint")

    def make(self, connection: psycopg.Connection, rows: int, size: int) -> int:
        """Make the changes, ``size`` a transaction; how many they were."""
        change = "quantity = quantity + 1" + (", id = -id" if self.moving else "")
        for sign in (1, -1) if self.moving else (1, 1):
            connection.execute(
                f"""
                do $$ begin
                    for n in 0 .. {rows // size - 1} loop
                        update updated set {change} where {sign} * id between n * {size} + 1 and (n + 1) * {size};
                        commit;
                    end loop;
                end $$""".encode()
            )
        return rows // size * size * 2


UPDATES = (
    Updates("plain"),
    Updates("10 % partial", share=10),
    Updates("100 % partial", share=100),
    Updates("keys", moving=True),
)


def sums(connection: psycopg.Connection, table: str) -> str:
    """What the other side must arrive at: rows and two sums, tab-separated."""
    second = _SUMMED.get(table, "count(*)")
    row = connection.execute(
        f"select count(*), coalesce(sum(id), 0)::text, coalesce({second}, 0)::text from {table}"
    ).fetchone()
    return "\t".join(map(str, row or ()))


def sums_query(table: str, relation: str) -> str:
    """The same of a ClickHouse relation."""
    second = _SUMMED.get(table, "count()")
    return f"select count(), sum(id), {second} from {relation}"


def _definition(columns: dict[str, tuple[str, str]]) -> str:
    return ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())


def _values(columns: dict[str, tuple[str, str]]) -> str:
    return ", ".join(value for _, value in columns.values())
