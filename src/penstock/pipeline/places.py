"""Tombstones at the old places of rows, where ``order_by`` names columns that PostgreSQL does not send of an old row.

ClickHouse's row is found by its whole sorting key, so a DELETE needs the values that the row had there, and an UPDATE that changes
them needs a tombstone at the old place. The places at which a key is alive are known from earlier rows of the batch, and from the
destination: all earlier batches are durable by then, and the copy has ended (``Plan.moving``, ``Gate``).

After a batch a key is alive at the place of its last row there and nowhere else, apart from places of later versions, which only a replay
finds. So whatever a crash left half done is mended by the replay. A tombstone whose row is nowhere stays at the place of zeros,
and hides nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.batch import EncodedColumn, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.batch import Batch
    from penstock.pipeline.complete import Lookup, Stored
    from penstock.plan import Plan, PlanColumn

Place = tuple[Value, ...]  # of the plan's moving columns
VERSION_BYTES = 16


def settle(batch: Batch, lookup: Lookup) -> None:
    """Put the batch's tombstones to their places, and add those of rows that moved. Its holes name every row, in order; none is left."""
    plan, names = batch.plan, batch.holes
    stored = dict(lookup.places(plan, list(dict.fromkeys(each.identity for each in names))))
    keys = list(zip(*(batch.values(index) for index in plan.identity), strict=True))
    places = list(zip(*(batch.values(index) for index in plan.moving), strict=True))
    deleted = batch.columns[len(plan.columns) + 1].values
    alive: dict[tuple[Value, ...], set[Place]] = {}
    left: list[tuple[int, Place]] = []  # by rows that moved or were deleted
    for each in names:
        key, row = keys[each.row], each.row
        old = alive.get(key, set())
        found = stored.pop(each.identity, ())
        old |= {_place(plan, other) for other in found if other.version <= each.version}
        if later := [other for other in found if other.version > each.version]:
            stored[each.identity] = later
        if deleted[row]:
            places[row] = old.pop() if old else places[row]
            alive[key] = set()
        else:
            old.discard(places[row])
            alive[key] = {places[row]}
        left += [(row, place) for place in old]
    for number, index in enumerate(plan.moving):
        batch.columns[index] = _column([place[number] for place in places], like=batch.columns[index])
    if left:
        _append(batch, keys, left)
    batch.holes = ()


def _place(plan: Plan, row: Stored) -> Place:
    """As a decoder would write it: what ClickHouse sends beside a NULL is its own affair."""
    return tuple(
        _nothing(plan.columns[index]) if value.null else replace(value, data=value.whole)
        for index, value in ((index, row.values[index]) for index in plan.moving)
    )


def _nothing(column: PlanColumn) -> Value:
    """NULL, or zero where there is none."""
    return Value(column.nullable, bytes(column.codec.width or 1))


def _append(batch: Batch, keys: Sequence[tuple[Value, ...]], left: Sequence[tuple[int, Place]]) -> None:
    """Tombstones with the versions of the rows that moved."""
    plan = batch.plan
    known: Mapping[int, list[Value]] = {
        **{index: [keys[row][number] for row, _ in left] for number, index in enumerate(plan.identity)},
        **{index: [place[number] for _, place in left] for number, index in enumerate(plan.moving)},
    }
    for index, (planned, column) in enumerate(zip(plan.columns, batch.columns, strict=False)):
        more = _column(known.get(index, [_nothing(planned)] * len(left)), like=column)
        batch.columns[index] = column.extended(more)
    versions, deleted = batch.columns[len(plan.columns) :]
    starts = [row * VERSION_BYTES for row, _ in left]
    versions.values += b"".join(versions.values[start : start + VERSION_BYTES] for start in starts)
    deleted.values += b"\1" * len(left)
    batch.rows += len(left)


def _column(values: Sequence[Value], *, like: EncodedColumn) -> EncodedColumn:
    nulls = None if like.nulls is None else bytes([value.null for value in values])
    return EncodedColumn(nulls, b"".join([value.whole for value in values]), like.spread)
