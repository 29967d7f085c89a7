"""The proof: both sides hold the same rows, compared value by value as exact text.

Both sides are read in one order, that of the key's bytes, and merged; nothing is held but the current rows. Each type has one
text that both sides can produce without rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from penstock.clickhouse.client import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from psycopg import Connection

    Query = Callable[[str], Iterable[Sequence[object]]]
    """Runs a select in the destination and gives its rows; one that streams keeps memory low."""

    Row = tuple[str | None, ...]

SAME_TEXT = ("{column}::text", "toString({column})")
TEXTS = {
    "timestamptz": (
        "to_char({column} at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
        "formatDateTime({column}, '%F %T.%f', 'UTC')",
    ),
    "numeric": ("trim_scale({column})::text", "toString({column})"),
}
"""How a value reads on either side, by pg_type.typname. ClickHouse prints decimals without zeros at the end."""

COLUMNS = """
    select a.attname, t.typname, a.attnum = any (coalesce(i.indkey, ''))
    from pg_attribute a
    join pg_type t on t.oid = a.atttypid
    left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
    where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
    order by a.attnum"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table's result. ``difference`` says where the two first differ; empty: they are equal."""

    table: str
    rows: int  # in PostgreSQL
    difference: str = ""

    @property
    def equal(self) -> bool:
        """Whether every value of every row is the same."""
        return not self.difference


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    type: str
    in_key: bool


def compare(
    connection: Connection, query: Query, *, tables: Iterable[str], view: Callable[[str], str]
) -> list[Comparison]:
    """Compare each of ``tables`` (``schema.name``, with a primary key) with ``view(name)`` in the query's database, under one snapshot."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read read only")
        return [compare_table(connection, query, table=table, view=view(table.partition(".")[2])) for table in tables]


def compare_table(connection: Connection, query: Query, *, table: str, view: str) -> Comparison:
    """Compare one table with a view of the same columns. Call it within a transaction: the source is read by a cursor."""
    name = sql.Identifier(*table.split("."))
    columns = [_Column(*row) for row in connection.execute(COLUMNS, [name.as_string(connection)])]
    key = [place for place, column in enumerate(columns) if column.in_key]
    with connection.cursor(name="penstock_compare") as cursor:
        cursor.itersize = 5000
        cursor.execute(_source_select(name, columns))
        return _merge(table, columns, _keyed(cursor, key), _keyed(query(_destination_select(view, columns)), key))


def _source_select(name: sql.Identifier, columns: list[_Column]) -> sql.Composed:
    texts = [
        sql.SQL(TEXTS.get(column.type, SAME_TEXT)[0]).format(column=sql.Identifier(column.name)) for column in columns
    ]
    order = [sql.SQL('{}::text collate "C"').format(sql.Identifier(column.name)) for column in columns if column.in_key]
    comma = sql.SQL(", ")
    return sql.SQL("select {} from {} order by {}").format(comma.join(texts), name, comma.join(order))


def _destination_select(view: str, columns: list[_Column]) -> str:
    texts = [TEXTS.get(column.type, SAME_TEXT)[1].format(column=quoted(column.name)) for column in columns]
    order = [f"toString({quoted(column.name)})" for column in columns if column.in_key]
    return f"select {', '.join(texts)} from {quoted(view)} order by {', '.join(order)}"  # noqa: S608  # names are quoted


def _keyed(rows: Iterable[Sequence[object]], key: list[int]) -> Iterator[tuple[tuple[bytes, ...], Row]]:
    """Each row after its key, as bytes: the order both sides sort by."""
    for row in rows:
        texts = tuple(None if value is None else str(value) for value in row)
        yield tuple((texts[place] or "").encode() for place in key), texts


def _merge(
    table: str,
    columns: list[_Column],
    source: Iterator[tuple[tuple[bytes, ...], Row]],
    destination: Iterator[tuple[tuple[bytes, ...], Row]],
) -> Comparison:
    rows, difference = 0, ""
    for here in source:
        rows += 1
        if difference:
            continue  # go on counting
        there = next(destination, None)
        if there is None or there[0] > here[0]:
            difference = f"the row with key {_shown(here[0])} is missing in ClickHouse"
        elif there[0] < here[0]:
            difference = f"the row with key {_shown(there[0])} is only in ClickHouse"
        elif there[1] != here[1]:
            wrong = next(each.name for each, a, b in zip(columns, here[1], there[1], strict=True) if a != b)
            difference = f'column "{wrong}" differs in the row with key {_shown(here[0])}'
    extra = None if difference else next(destination, None)
    if extra is not None:
        difference = f"the row with key {_shown(extra[0])} is only in ClickHouse"
    return Comparison(table, rows, difference)


def _shown(key: tuple[bytes, ...]) -> str:
    return ", ".join(part.decode() for part in key)
