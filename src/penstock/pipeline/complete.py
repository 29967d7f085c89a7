"""Completing unchanged out-of-line values that an UPDATE left out (invariant 5). Never a default in silence.

What earlier rows of the batch know has been folded in by the decoder. The rest comes from the newest stored row of the key (after a
key change: of the old key), or is read from the source again. A row that is nowhere any more becomes a tombstone:
whatever took it away follows in the stream; but where the table itself was dropped its rows stay as they were.
All earlier batches of the table are durable by now: a lane writes one at a time.

**Values from the future.** A copied row, and a value that was read again, are of a later time R than the change that is being
completed: by then the row may have moved to another key, and a different row may stand under this one. That heals by
itself, as the move follows in the stream, if only the move does not take the stored value for its own. So a stored value of
time R completes only changes that were committed after R: whatever happened to the row until R has then been written,
completed at a still later time, and the last of these found the row in its place. ``Doubt`` keeps the times.

Where copy and stream meet exactly (``Plan.at_seam``), the newest row stored below a change is what it changed. While that row is not
copied yet, the change waits (NotCopiedError). Only JSON that does not come back as it went is read again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from penstock.batch import REASONS, Rejected, Unfit, commit_of, version_of
from penstock.decode import encode
from penstock.decode.codecs.unfit import NULL
from penstock.pipeline.evolve import unpublished
from penstock.plan import Shape
from penstock.spill import Spill, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from penstock.batch import Batch, Hole, Value
    from penstock.lsn import Lsn
    from penstock.plan import Plan
    from penstock.spill import Spilled

Identity = tuple[bytes, ...]
FIRST_STREAMED = version_of(0, 1, 0)  # copied rows stand below it
MOST_KEYS = 100_000
NOWHERE_YET = 1 << 62  # beyond every position


class Stored(Protocol):
    """The newest row of a key in the destination. ``values`` are by index into the plan's columns; some may be missing."""

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

    def places(self, plan: Plan, identities: Sequence[Identity]) -> Mapping[Identity, Sequence[Stored]]:
        """The rows of each key that are alive, one a place, with the values of the plan's moving columns."""


class Reread(Protocol):
    """Reads rows of the source again."""

    def rows(
        self, plan: Plan, identities: Sequence[Identity], columns: Sequence[int], xids: Sequence[int]
    ) -> tuple[Mapping[Identity, tuple[bytes | Spilled | None, ...]], Lsn] | None:
        """The values of ``columns`` by key once the transactions ``xids`` are visible, and a position behind all that was seen.

        Missing rows are left out. None when the table was dropped.
        """


class NotCopiedError(Exception):
    """A row that a change has to be completed from may not have been copied yet: the change is to be read again after the copy."""


class Doubt:
    """Until which position stored values of a table are not to be trusted.

    ``copied_until`` says it of copied rows; where copy and stream meet exactly, they are of their moment. Of values that
    were read again it is kept by key, and, for the next process, as one position: ``keep`` makes that durable before such a value is
    written.
    """

    def __init__(
        self,
        kept: int,
        copied_until: Callable[[], int],
        keep: Callable[[int], None],
        *,
        base: Callable[[], int] = lambda: 0,
        exact: Callable[[], bool] = lambda: False,
    ) -> None:
        self._base = base  # the version of rows that are copied last; below it there may be others
        self._exact = exact
        self._before = self._latest = kept
        self._copied_until = copied_until
        self._keep = keep
        self._keys: dict[Identity, int] = {}

    def of(self, identity: Identity, row: Stored) -> int:
        """A change must have been committed after this position to take its values from ``row``."""
        if row.version < FIRST_STREAMED or row.version <= self._base():
            return 0 if self._exact() else self._copied_until()
        return max(self._before, self._keys.get(identity, 0))

    def must_wait(self) -> bool:
        """Whether what is not stored may still be copied, and is to be waited for."""
        return self._exact() and self._copied_until() == NOWHERE_YET

    def add(self, identities: Sequence[Identity], until: int, committed: int) -> None:
        """Values of these keys were read again at ``until``. What ended before ``committed`` is forgotten."""
        if len(self._keys) > MOST_KEYS:
            self._keys = {key: position for key, position in self._keys.items() if position >= committed}
        self._keys.update(dict.fromkeys(identities, until))
        if until > self._latest:
            self._latest = until
            self._keep(until)


def complete(
    batch: Batch, lookup: Lookup, reread: Reread, doubt: Doubt, counters: Counter[str], spill: Spill | None = None
) -> None:
    """Fill every hole of ``batch``.

    Raises UnfitValueError for a value of the source where ``on_unfit = "fail"``, NotCopiedError where it is too early. ``batch`` and
    ``counters`` are touched when all is done: an attempt that fails is made again. What is too large for memory goes into ``spill``.
    """
    plan = batch.plan
    holes = [hole for hole in batch.holes if hole.columns]
    columns = sorted({column for hole in holes for column in hole.columns})
    copying = doubt.must_wait()  # asked before looking: what is copied meanwhile may or may not be found
    stored: Mapping[Identity, Stored] = {}
    if plan.shape is not Shape.NULL:
        below = min(hole.version for hole in holes) if plan.shape is Shape.HISTORY else None
        wanted = dict.fromkeys(each for hole in holes for each in (hole.identity, hole.old_identity) if each)
        stored = lookup.newest(plan, list(wanted), columns, below)
    fills, left = _from_destination(holes, stored, doubt)
    counted: Counter[str] = Counter()
    unfit: tuple[Unfit, ...] = ()
    dropped: set[int] = set()
    if fills:
        counted["unchanged values from the destination"] += len(fills)
    if left:
        if copying:
            raise NotCopiedError("a row that a change left out values of is not copied yet")
        found = _from_source(plan, left, columns, reread, doubt, spill or Spill())
        if found is None:
            dropped = _of_dropped(plan, left)
            counted["changes left out as the table was dropped"] += len(dropped)
        else:
            read_again, gone = found
            unfit = _unfit_in(plan, left, read_again)
            counted["unchanged values from the source"] += len(read_again)
            counted["rows gone before they were complete"] += len(gone)
            fills.update(read_again)
            batch.mark_deleted(gone)
    batch.complete(fills)
    if dropped:
        batch.leave_out(dropped)
    batch.unfit += unfit
    counters.update(counted)


def _of_dropped(plan: Plan, holes: Sequence[Hole]) -> set[int]:
    """Changes that nobody can complete any more. Without them the rows stay as they were, and what else the table held is written.

    Raises SchemaConflictError where a row would be lost, as its old key or place is deleted, or where every change is to be there.
    """
    moved = plan.moving or any(hole.old_identity != hole.identity for hole in holes)
    if plan.shape is not Shape.CURRENT or plan.at_seam or moved:
        raise unpublished(plan.table)
    return {hole.row for hole in holes}


def _unfit_in(plan: Plan, holes: Sequence[Hole], values: Mapping[tuple[int, int], Value]) -> tuple[Unfit, ...]:
    """How often which column's type could not hold a value, and why. Raises UnfitValueError where ``on_unfit = "fail"``."""
    keys = {hole.row: hole.identity for hole in holes}
    found: dict[tuple[str, str], Unfit] = {}
    for (row, index), value in values.items():
        column = plan.columns[index]
        reason = value.unfit or (NULL if value.null and column.null_is_unfit else 0)
        if reason and plan.fail_on_unfit:
            raise Rejected(plan, column.name, REASONS[reason], in_key=False, key=keys[row]).error
        if reason:
            first = found.setdefault((column.name, REASONS[reason]), Unfit(column.name, REASONS[reason], 0, keys[row]))
            found[column.name, REASONS[reason]] = replace(first, count=first.count + 1)
    return tuple(found.values())


def _from_destination(
    holes: Sequence[Hole], stored: Mapping[Identity, Stored], doubt: Doubt
) -> tuple[dict[tuple[int, int], Value], list[Hole]]:
    """Values by row and column of what the destination knows, and the holes that are left.

    A row under the new key that is not older than ours says that this is a replay: it is our own, or a newer one, which may
    be another row by then. So nothing is handed on from a newer one, and from our own only what is not in doubt. Otherwise an
    earlier row of the batch that held the same values knows them, or the old key's row: what is stored under the new key may be
    a row that this very batch deletes.
    """
    fills: dict[tuple[int, int], Value] = {}
    left: list[Hole] = []
    until: dict[int, int] = {}  # rows that later ones may take values from, if they were committed after this
    for hole in holes:
        row = stored.get(hole.identity)
        values: Mapping[int, Value] | None = None
        trusted = 0
        if row is not None and not row.deleted and row.version >= hole.version:
            values = _whole(hole, row)
            trusted = doubt.of(hole.identity, row) if row.version == hole.version else NOWHERE_YET
        elif hole.after < 0:
            values = _from_old(hole, stored, doubt)
        elif until.get(hole.after, NOWHERE_YET) < _committed(hole):
            values = {column: fills[hole.after, column] for column in hole.columns}
        if values is None:
            left.append(hole)
            continue
        until[hole.row] = trusted
        fills.update(((hole.row, column), values[column]) for column in hole.columns)
    return fills, left


def _from_old(hole: Hole, stored: Mapping[Identity, Stored], doubt: Doubt) -> Mapping[int, Value] | None:
    """What the old key's row knows, if it can be trusted."""
    row = stored.get(hole.old_identity)
    if row is None or row.deleted or row.version >= hole.version:
        return None
    return _whole(hole, row) if _committed(hole) > doubt.of(hole.old_identity, row) else None


def _whole(hole: Hole, row: Stored) -> Mapping[int, Value] | None:
    """The stored values, if all that the hole lacks can be had as they are stored."""
    return row.values if all(column in row.values for column in hole.columns) else None


def _committed(hole: Hole) -> int:
    """The commit LSN."""
    return commit_of(hole.version)


def _from_source(
    plan: Plan, holes: Sequence[Hole], columns: Sequence[int], reread: Reread, doubt: Doubt, spill: Spill
) -> tuple[dict[tuple[int, int], Value], list[int]] | None:
    """Values by row and column, and the rows that are nowhere any more; None when the table was dropped."""
    identities = list(dict.fromkeys(hole.identity for hole in holes))
    found = reread.rows(plan, identities, columns, sorted({hole.xid for hole in holes}))
    if found is None:
        return None
    rows, until = found
    doubt.add(identities, until, _committed(holes[0]))
    fills: dict[tuple[int, int], Value] = {}
    gone: list[int] = []
    for hole in holes:
        values = rows.get(hole.identity)
        if values is None:
            gone.append(hole.row)
            continue
        for column in hole.columns:
            text = values[columns.index(column)]
            value = encode(plan.columns[column].codec, None if text is None else read(text))
            fills[hole.row, column] = replace(value, data=spill.keep(value.whole))
    return fills, gone
