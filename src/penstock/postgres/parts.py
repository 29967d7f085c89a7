"""Divides a table into parts: ranges that are copied one by one, each in a short transaction of its own.

From 14 on a range of blocks is read by itself (TID range scan), so parts are ctid ranges. Before, and in other table access
methods than heap, every such range would be a scan of the whole table (postgres.md 12): there a part is a range of the key's first
column, with bounds from the statistics or a sample, or the whole relation.
However the bounds came about, every row belongs to a part: whatever is not below a bound is left to the parts behind it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

from penstock.errors import SourceChangedError
from penstock.postgres import QUERIES
from penstock.postgres.connection import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.postgres.connection import Connection
    from penstock.table import Table

TID_RANGES_SINCE = 14_00_00
MOST_PART_BYTES = 1 << 30  # with what is stored out of line
SAMPLED_PAGES = 300
_USUAL_ROWS_A_PAGE = 60  # where nothing is known yet


@dataclass(frozen=True, slots=True)
class Part:
    """One range of one relation: ``low`` ≤ place < ``high``, None for an open end.

    ``low`` and ``high`` are block numbers for ctid ranges, the key column's text for key ranges. ``relation`` and ``filenode``
    are the relation's oid and its storage when the part was planned.
    """

    index: int
    relation: int
    filenode: int
    kind: Literal["whole", "ctid", "key"]
    low: str | None = None
    high: str | None = None
    column: str = ""  # of a key range
    estimated_rows: int = 0

    def to_json(self) -> str:
        """For keeping."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Part:
        """Read what ``to_json`` wrote."""
        return cls(**json.loads(text))


def plan_parts(connection: Connection, table: Table, columns: Sequence[str], *, part_rows: int) -> list[Part]:
    """Parts of about ``part_rows`` rows, leaf by leaf; none for a partitioned table without leaves.

    ``columns`` are those that will be copied. For a copy under a snapshot, plan before the snapshot is taken: then a rewrite between
    the two is noticed (postgres.md 11). Raises SourceChangedError for a table that is gone, else SourceError.
    """
    oids = [leaf.oid for leaf in table.leaves] if table.partitioned else [table.oid]
    with translated(f"planning the copy of {table.full_name}"):
        with connection.cursor(row_factory=namedtuple_row) as cursor:
            holders: list[Any] = cursor.execute(QUERIES["holders"], {"oids": oids}).fetchall()
        if len(holders) < len(oids):
            raise SourceChangedError(
                f"{table.full_name}{', or a partition of it,' if table.partitioned else ''} was dropped in the source",
                hint="The copy goes on, or ends, when the stream has come to that.",
            )
        pages = sum(holder.pages for holder in holders)
        density = (table.estimated_rows / pages if pages else 0.0) or _USUAL_ROWS_A_PAGE
        parts = [
            part
            for holder in holders
            for part in _parts_of(connection, table, holder, part_rows=part_rows, density=density)
        ]
    return [replace(part, index=index) for index, part in enumerate(parts)]


def _parts_of(connection: Connection, table: Table, holder: Any, *, part_rows: int, density: float) -> list[Part]:
    rows = int(holder.pages * density)
    count = max(1, -(-rows // part_rows), -(-holder.bytes // MOST_PART_BYTES))
    whole = Part(0, holder.oid, holder.filenode, "whole", estimated_rows=rows)
    if count == 1:
        return [whole]
    if holder.heap and connection.info.server_version >= TID_RANGES_SINCE:
        count = min(count, holder.pages)
        return _ranges(whole, "ctid", [str(holder.pages * each // count) for each in range(1, count)])
    if not table.key:
        return [whole]
    return _ranges(replace(whole, column=table.key[0]), "key", _key_bounds(connection, table, holder, count))


def _ranges(whole: Part, kind: Literal["ctid", "key"], bounds: Sequence[str]) -> list[Part]:
    """The last range is open-ended: rows may have been added since."""
    if not bounds:
        return [whole]
    lows, highs = [None, *bounds], [*bounds, None]
    rows = whole.estimated_rows // len(lows)
    return [
        replace(whole, kind=kind, low=low, high=high, estimated_rows=rows)
        for low, high in zip(lows, highs, strict=True)
    ]


def _key_bounds(connection: Connection, table: Table, holder: Any, count: int) -> list[str]:
    """Up to ``count`` - 1 bounds that differ, in the key's order."""
    try:
        bounds = _from_statistics(connection, table, holder) or _from_sample(connection, table, holder, count)
    except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError, UnicodeError):
        return []  # a type that does not come back from its text, or a table that cannot be sampled
    step = max(1.0, len(bounds) / count)
    chosen = [bounds[int(each * step)] for each in range(1, count) if int(each * step) < len(bounds)]
    return list(dict.fromkeys(chosen))


def _from_statistics(connection: Connection, table: Table, holder: Any) -> list[str]:
    column = table.column(table.key[0])
    query = QUERIES["histogram"].format(
        type=sql.SQL(column.type.base.sql),  # as format_type wrote it
        schema=holder.nspname,
        name=holder.relname,
        column=column.name,
    )
    row = connection.execute(query).fetchone()
    return [bound for bound in (row[0] or ()) if isinstance(bound, str)] if row else []


def _from_sample(connection: Connection, table: Table, holder: Any, count: int) -> list[str]:
    query = QUERIES["sample"].format(
        fractions=[each / count for each in range(count)],
        column=sql.Identifier(table.key[0]),
        relation=sql.Identifier(holder.nspname, holder.relname),
        percent=min(100.0, 100.0 * SAMPLED_PAGES / max(1, holder.pages)),
    )
    row = connection.execute(query).fetchone()
    return [bound for bound in (row[0] or ()) if isinstance(bound, str)] if row else []
