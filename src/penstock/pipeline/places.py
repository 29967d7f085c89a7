"""Tombstones at the old places of rows, where ``order_by`` names columns that PostgreSQL does not send of an old row.

ClickHouse's row is found by its whole sorting key, so a DELETE needs the values that the row had there, and an UPDATE that changes
them needs a tombstone at the old place. They are known from the row before of the same key: one of the batch, or the newest stored one
below the batch. All earlier batches are durable by then, and the copy has ended (``Plan.moving``, ``Gate``).

A replay finds the same, or a tombstone, or nothing: then whoever came later has left a tombstone at the old place already. A tombstone
whose row is nowhere stays at the place of zeros, and hides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.batch import EncodedColumn, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.batch import Batch
    from penstock.pipeline.complete import Lookup, Stored
    from penstock.plan import Plan

Place = tuple[Value, ...]  # of the plan's moving columns
VERSION_BYTES = 16


def settle(batch: Batch, lookup: Lookup) -> None:
    """Put the batch's tombstones to their places, and add those of rows that moved. Its holes name every row, in order; none is left."""
    plan, names = batch.plan, batch.holes
    stored = lookup.newest(
        plan, list(dict.fromkeys(each.identity for each in names)), plan.moving, min(each.version for each in names)
    )
    keys = list(zip(*(batch.values(index) for index in plan.identity), strict=True))
    places = list(zip(*(batch.values(index) for index in plan.moving), strict=True))
    deleted = batch.columns[len(plan.columns) + 1].values
    newest: dict[tuple[Value, ...], Place | None] = {}
    left: list[tuple[int, Place]] = []  # rows that moved, and from where
    for each in names:
        key = keys[each.row]
        was = newest[key] if key in newest else _place(plan, stored.get(each.identity))
        newest[key] = None if deleted[each.row] else places[each.row]
        if was is None:
            continue
        if deleted[each.row]:
            places[each.row] = was
        elif was != places[each.row]:
            left.append((each.row, was))
    for number, index in enumerate(plan.moving):
        batch.columns[index] = _column([place[number] for place in places], like=batch.columns[index])
    if left:
        _append(batch, keys, left)
    batch.holes = ()


def _place(plan: Plan, row: Stored | None) -> Place | None:
    return None if row is None or row.deleted else tuple(row.values[index] for index in plan.moving)


def _append(batch: Batch, keys: Sequence[tuple[Value, ...]], left: Sequence[tuple[int, Place]]) -> None:
    """Tombstones with the versions of the rows that moved."""
    plan = batch.plan
    known: Mapping[int, list[Value]] = {
        **{index: [keys[row][number] for row, _ in left] for number, index in enumerate(plan.identity)},
        **{index: [place[number] for _, place in left] for number, index in enumerate(plan.moving)},
    }
    for index, (planned, column) in enumerate(zip(plan.columns, batch.columns, strict=False)):
        nothing = Value(planned.nullable, bytes(planned.codec.width or 1))
        more = _column(known.get(index, [nothing] * len(left)), like=column)
        nulls = column.nulls + more.nulls if column.nulls is not None and more.nulls is not None else None
        batch.columns[index] = EncodedColumn(nulls, column.values + more.values, column.spread)
    versions, deleted = batch.columns[len(plan.columns) :]
    starts = [row * VERSION_BYTES for row, _ in left]
    versions.values += b"".join(versions.values[start : start + VERSION_BYTES] for start in starts)
    deleted.values += b"\1" * len(left)
    batch.rows += len(left)


def _column(values: Sequence[Value], *, like: EncodedColumn) -> EncodedColumn:
    nulls = None if like.nulls is None else bytes([value.null for value in values])
    return EncodedColumn(nulls, b"".join([value.data for value in values]), like.spread)
