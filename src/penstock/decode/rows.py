"""Decoded rows that wait to be taken, and how they become a Batch: columns, holes, counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.batch import REASONS, Batch, EncodedColumn, Hole, Unfit
from penstock.decode.codecs import zero_of
from penstock.decode.messages import UNCHANGED, Unchanged
from penstock.decode.spread import spreading
from penstock.plan import Operation, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.plan import Plan, PlanColumn

Cell = bytes | Unchanged | None  # encoded, not known yet, NULL
Key = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Names:
    """How a row with holes is found: PostgreSQL's text of its identity, now and before its UPDATE; nothing before an INSERT."""

    identity: tuple[bytes, ...]
    old_identity: tuple[bytes, ...]
    xid: int


@dataclass(slots=True)
class Row:
    """One row, encoded: a cell for each of the plan's columns, and what the metadata columns say.

    ``text_bytes`` counts the text of the cells written, NULL and holes as nothing. ``unfit`` holds (column, reason) of them,
    and ``key`` is PostgreSQL's text of the row's identity where there are any.
    """

    cells: list[Cell]
    operation: Operation
    version: int = 0
    is_deleted: bool = False
    committed_at: int = 0
    text_bytes: int = 0
    unfit: Sequence[tuple[int, int]] = ()
    key: tuple[bytes, ...] = ()
    from_old: int = 0
    names: Names | None = None  # where cells are unchanged
    after: int = -1  # the row of the batch that held the same unchanged values, which it does not know either


class Pending:
    """Rows of one plan in stream order. ``floor`` is the decoder's position when the first one came."""

    __slots__ = ("_rows", "floor", "plan", "text_bytes")

    def __init__(self, plan: Plan, *, floor: int = 0) -> None:
        self.plan = plan
        self.floor = floor
        self.text_bytes = 0
        self._rows: list[Row] = []

    @property
    def rows(self) -> int:
        """How many rows there are, tombstones included."""
        return len(self._rows)

    def append(self, row: Row) -> None:
        """Add a row. A tombstone stands directly before the row of its UPDATE."""
        self._rows.append(row)
        self.text_bytes += row.text_bytes

    def batch(self) -> Batch:
        """All rows as one block. Unchanged values are first looked for in the rows before."""
        rows = self._rows
        folded = _fold(self.plan, rows) if any(row.names for row in rows) else 0
        columns = [
            _column([row.cells[index] for row in rows], column) for index, column in enumerate(self.plan.columns)
        ]
        return Batch(
            plan=self.plan,
            rows=len(rows),
            floor=self.floor,
            committed_at=rows[0].committed_at,
            columns=columns + _metadata(self.plan, rows),
            holes=_holes(self.plan, rows),
            folded=folded,
            from_old=sum(row.from_old for row in rows),
            unfit=_unfit(self.plan, rows),
            text_bytes=self.text_bytes,
        )


def _fold(plan: Plan, rows: list[Row]) -> int:
    """Fill unchanged cells from the row before of the same key, as encoded; says how many.

    A row that follows its own tombstone had that key before. Nothing is carried over any other tombstone or a TRUNCATE.
    """
    newest: dict[Key, int] = {}
    folded = 0
    tombstone, moved = None, None
    for number, row in enumerate(rows):
        key = tuple([row.cells[index] for index in plan.identity])
        if row.operation is Operation.TRUNCATE:
            newest.clear()
        elif row.is_deleted:
            tombstone, moved = row, newest.pop(key, None)
        else:
            follows = tombstone is not None and tombstone.version == row.version
            before = moved if follows else newest.get(key)
            if row.names and before is not None:
                folded += _fill(row.cells, rows[before].cells)
                row.after = before if UNCHANGED in row.cells else -1
            newest[key] = number
    return folded


def _fill(cells: list[Cell], before: list[Cell]) -> int:
    filled = 0
    for index, cell in enumerate(cells):
        if cell is UNCHANGED and before[index] is not UNCHANGED:
            cells[index] = before[index]
            filled += 1
    return filled


def _column(cells: list[Cell], column: PlanColumn) -> EncodedColumn:
    """NULL and a hole both stand as the type's zero; only NULL is marked in the null map."""
    zero = zero_of(column.codec)
    nulls = bytes([cell is None for cell in cells]) if column.nullable else None
    values = b"".join([cell if isinstance(cell, bytes) else zero for cell in cells])
    return EncodedColumn(nulls, values, spreading(column))


def _metadata(plan: Plan, rows: list[Row]) -> list[EncodedColumn]:
    columns = [
        b"".join([row.version.to_bytes(16, "little") for row in rows]),
        bytes([row.is_deleted for row in rows]),
    ]
    if plan.shape is Shape.HISTORY:
        columns.append(bytes([row.operation.value for row in rows]))
        columns.append(b"".join([row.committed_at.to_bytes(8, "little", signed=True) for row in rows]))
    return [EncodedColumn(None, values) for values in columns]


def _holes(plan: Plan, rows: list[Row]) -> tuple[Hole, ...]:
    """What is still unchanged after folding, with the place of each placeholder in its column's values."""
    places = {
        index: _offsets([row.cells[index] for row in rows], zero_of(column.codec))
        for index, column in enumerate(plan.columns)
        if any(row.cells[index] is UNCHANGED for row in rows)
    }
    holes = []
    for number, row in enumerate(rows):
        columns = tuple(index for index in places if row.cells[index] is UNCHANGED)
        if row.names and (columns or plan.moving):
            holes.append(
                Hole(
                    row=number,
                    columns=columns,
                    offsets=tuple(places[index][number] for index in columns),
                    identity=row.names.identity,
                    old_identity=row.names.old_identity,
                    version=row.version,
                    xid=row.names.xid,
                    after=row.after,
                )
            )
    return tuple(holes)


def _offsets(cells: list[Cell], zero: bytes) -> list[int]:
    offsets, place = [], 0
    for cell in cells:
        offsets.append(place)
        place += len(cell if isinstance(cell, bytes) else zero)
    return offsets


def _unfit(plan: Plan, rows: list[Row]) -> tuple[Unfit, ...]:
    """By column, then by reason."""
    counts = Counter(each for row in rows for each in row.unfit)
    examples = {each: row.key for row in reversed(rows) for each in row.unfit}
    return tuple(
        Unfit(plan.columns[index].name, REASONS[reason], count, examples[index, reason])
        for (index, reason), count in sorted(counts.items())
    )
