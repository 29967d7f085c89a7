"""Completing unchanged out-of-line values that an UPDATE left out (invariant 5). Never a default in silence.

What earlier rows of the batch know has been folded in by the decoder. For the rest, in this order: the newest stored row of the
key; where the same UPDATE changed the key, that of the old key; the source itself, by the new key, then the old. A row that
is nowhere any more has been deleted since: it becomes a tombstone, and the delete follows in the stream.
All earlier batches of the table are durable by now: a lane writes one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from penstock.decode import encode
from penstock.plan import Shape

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping, Sequence

    from penstock.batch import Batch, Hole, Value
    from penstock.plan import Plan

Identity = tuple[bytes, ...]


class Stored(Protocol):
    """The newest row of a key in the destination. ``values`` are by index into the plan's columns."""

    @property
    def version(self) -> int:
        """Its ``_version``."""

    @property
    def deleted(self) -> bool:
        """Whether it is a tombstone."""

    @property
    def values(self) -> Mapping[int, Value]:
        """The values asked for."""


class Lookup(Protocol):
    """Looks rows up in the destination."""

    def newest(
        self, plan: Plan, identities: Sequence[Identity], columns: Sequence[int], below: int | None
    ) -> Mapping[Identity, Stored]:
        """The newest stored row of each key, in a history the newest below a version; keys that are not there are left out."""


class Reread(Protocol):
    """Reads rows of the source again."""

    def rows(
        self, plan: Plan, identities: Sequence[Identity], columns: Sequence[int], xids: Sequence[int]
    ) -> Mapping[Identity, tuple[bytes | None, ...]]:
        """The values of ``columns`` as they are now, by key, once the transactions ``xids`` are visible; missing rows are left out."""


def complete(batch: Batch, lookup: Lookup, reread: Reread, counters: Counter[str]) -> None:
    """Fill every hole of ``batch``."""
    plan = batch.plan
    columns = sorted({column for hole in batch.holes for column in hole.columns})
    identities = _identities(batch.holes)
    stored: Mapping[Identity, Stored] = {}
    if plan.shape is not Shape.NULL:
        below = min(hole.version for hole in batch.holes) if plan.shape is Shape.HISTORY else None
        stored = lookup.newest(plan, identities, columns, below)
    fills: dict[tuple[int, int], Value] = {}
    left: list[Hole] = []
    for hole in _first_of_each_chain(batch.holes):
        row = _known(hole, stored)
        if row is None:
            left.append(hole)
            continue
        counters["unchanged values from the destination"] += len(hole.columns)
        fills.update(((hole.row, column), row.values[column]) for column in hole.columns)
    if left:
        fills.update(_from_source(plan, left, columns, reread, counters))
    gone = _follow_chains(batch.holes, fills)
    if gone:
        counters["rows deleted before they were complete"] += len(gone)
        batch.mark_deleted(gone)
    batch.complete(fills)


def _first_of_each_chain(holes: Sequence[Hole]) -> list[Hole]:
    return [hole for hole in holes if hole.after < 0]


def _follow_chains(holes: Sequence[Hole], fills: dict[tuple[int, int], Value]) -> list[int]:
    """Hand values on to the later rows of each key, in row order; the rows that stay incomplete are returned."""
    gone: list[int] = []
    for hole in holes:
        for column in hole.columns:
            if hole.after >= 0 and (hole.after, column) in fills:
                fills[hole.row, column] = fills[hole.after, column]
        if any((hole.row, column) not in fills for column in hole.columns):
            gone.append(hole.row)
    return gone


def _identities(holes: Sequence[Hole]) -> list[Identity]:
    return list(dict.fromkeys(identity for hole in holes for identity in (hole.identity, hole.old_identity)))


def _known(hole: Hole, stored: Mapping[Identity, Stored]) -> Stored | None:
    """The stored row that knows the values.

    After a key change that is the old key's row: what is stored under the new key may be a row that this very
    batch deletes. Where it is not older than ours, this is a replay, and our own row, or a newer one, is stored already.
    """
    row = stored.get(hole.identity)
    if hole.old_identity == hole.identity:
        return None if row is None or row.deleted else row
    old = stored.get(hole.old_identity)
    if old is not None and not old.deleted and old.version < hole.version:
        return old
    return row if row is not None and not row.deleted and row.version >= hole.version else None


def _from_source(
    plan: Plan, holes: Sequence[Hole], columns: Sequence[int], reread: Reread, counters: Counter[str]
) -> dict[tuple[int, int], Value]:
    rows = reread.rows(plan, _identities(holes), columns, sorted({hole.xid for hole in holes}))
    fills: dict[tuple[int, int], Value] = {}
    for hole in holes:
        values = rows.get(hole.identity) or rows.get(hole.old_identity)
        if values is None:
            continue
        counters["unchanged values from the source"] += len(hole.columns)
        for column in hole.columns:
            fills[hole.row, column] = encode(plan.columns[column].codec, values[columns.index(column)])
    return fills
