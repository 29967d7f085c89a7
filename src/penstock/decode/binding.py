"""From tuples of text to encoded rows of a plan: which values go where, what a change of the key means, what is rejected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penstock.batch import REASONS, Rejected
from penstock.decode.codecs import UnfitError, encoder_of, zero_of
from penstock.decode.codecs.unfit import NULL
from penstock.decode.messages import UNCHANGED, Delete, Field, Insert, Unchanged
from penstock.decode.rows import Cell, Names, Row
from penstock.errors import FrameError
from penstock.plan import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.decode.messages import Tuple, Update
    from penstock.plan import Plan


class RowRejectedError(Exception):
    """A row that must stop its table."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(f"{rejected.plan.table.full_name}.{rejected.column}: {rejected.reason}")
        self.rejected = rejected


@dataclass(slots=True)
class _Written:
    """What is counted while cells are encoded that go into a row."""

    text_bytes: int = 0
    unfit: list[tuple[int, int]] = field(default_factory=list)


class Encoding:
    """A plan's codecs, made ready. Cells that are written into a row are counted; cells that are only compared are not."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._zeros = [zero_of(column.codec) for column in plan.columns]
        self._encoders = [
            encoder_of(column.codec, in_key=index in plan.key) for index, column in enumerate(plan.columns)
        ]

    def row(self, texts: Sequence[Field], operation: Operation) -> Row:
        """A row of texts in the order of the plan's columns. Raises RowRejectedError."""
        written = _Written()
        cells: list[Cell] = []
        for index, text in enumerate(texts):
            if text is None and self.plan.columns[index].null_is_unfit:
                self._count_null(index, written)
            cells.append(text if isinstance(text, Unchanged) else self._cell(index, text, written))
        return Row(
            cells, operation, text_bytes=written.text_bytes, unfit=written.unfit, key=identity_of(self.plan, texts)
        )

    def tombstone(self, texts: Sequence[Field], known: Iterable[int]) -> Row:
        """A row that says that the old row is gone: the columns ``known`` of it, NULL or zero in the others."""
        written = _Written()
        row = self.empty(Operation.DELETE)
        for index in known:
            text = texts[index]
            row.cells[index] = text if isinstance(text, Unchanged) else self._cell(index, text, written)
        row.text_bytes, row.unfit, row.key = written.text_bytes, written.unfit, identity_of(self.plan, texts)
        return row

    def empty(self, operation: Operation) -> Row:
        """A row of nothing but NULL and zero, marked deleted."""
        return Row([self._null(index) for index in range(len(self._zeros))], operation, is_deleted=True)

    def compared(self, index: int, text: Field) -> Cell:
        """The cell of an old value, which is not written."""
        return text if isinstance(text, Unchanged) else self._cell(index, text, None)

    def _null(self, index: int) -> bytes | None:
        return None if self.plan.columns[index].nullable else self._zeros[index]

    def _cell(self, index: int, text: bytes | None, written: _Written | None) -> bytes | None:
        if text is None:
            return self._null(index)
        if written:
            written.text_bytes += len(text)
        try:
            return self._encoders[index](text)
        except UnfitError as error:
            return self._unfit(index, error, written)
        except ValueError:
            raise self._rejected(index, "malformed") from None

    def _unfit(self, index: int, error: UnfitError, written: _Written | None) -> bytes | None:
        if index in self.plan.identity or (self.plan.fail_on_unfit and written):
            raise self._rejected(index, str(error)) from None
        if written:
            written.unfit.append((index, error.reason))
        return None if self.plan.columns[index].nullable and not error.bounded else error.nearest

    def _count_null(self, index: int, written: _Written) -> None:
        if self.plan.fail_on_unfit:
            raise self._rejected(index, REASONS[NULL])
        written.unfit.append((index, NULL))

    def _rejected(self, index: int, reason: str) -> RowRejectedError:
        plan = self.plan
        return RowRejectedError(Rejected(plan, plan.columns[index].name, reason, in_key=index in plan.identity))


def identity_of(plan: Plan, texts: Sequence[Field]) -> tuple[bytes, ...]:
    """PostgreSQL's text of a row's identity, for people. ``texts`` are in the order of the plan's columns."""
    fields = (texts[index] for index in plan.identity)
    return tuple(field if isinstance(field, bytes) else b"" for field in fields)


def key_of(places: Sequence[tuple[int, int]], plan: Plan, change: Insert | Update | Delete) -> tuple[bytes, ...]:
    """The identity of the row that a change is about, for people: the new one where there is a new row.

    ``places`` are (tuple's column, plan's column).
    """
    texts: list[Field] = [None] * len(plan.columns)
    old = None if isinstance(change, Insert) else change.old
    for fields in (old, None if isinstance(change, Delete) else change.new):
        for number, index in places:
            if fields is not None and not isinstance(fields[number], Unchanged):
                texts[index] = fields[number]
    return identity_of(plan, texts)


class Binding:
    """A relation whose rows go into a plan. ``source[i]`` is the plan's column of the tuple's column i, or -1.

    An old tuple tells the identity. It tells every column where it is marked 'O' and ``old_is_full`` (the marker alone lies
    under publish_via_partition_root), and for a keyless plan, which has no other rows. Changes below the version ``since``
    are skipped: they came with the copy.
    """

    def __init__(self, plan: Plan, source: Sequence[int], *, old_is_full: bool, since: int) -> None:
        self.plan = plan
        self.since = since
        self.encoding = Encoding(plan)
        self._old_is_full = old_is_full
        self._places = [(number, index) for number, index in enumerate(source) if index >= 0]

    def insert(self, new: Tuple, *, xid: int) -> list[Row]:
        """The row of an INSERT. A row filter can turn an UPDATE into one, and then leaves out unchanged values."""
        texts = self._texts(new)
        row = self.encoding.row(texts, Operation.INSERT)
        return [self._named(row, texts, None, xid=xid)]

    def update(self, new: Tuple, old: Tuple | None, *, marked_full: bool, xid: int) -> list[Row]:
        """The row of an UPDATE, after a tombstone of its old key where that differs, as encoded; always so without a key."""
        texts = self._texts(new)
        if old is None:
            return [self._named(self.encoding.row(texts, Operation.UPDATE), texts, texts, xid=xid)]
        was = self._texts(old)
        known = self._known(marked_full=marked_full)
        filled = [index for index in known if texts[index] is UNCHANGED]
        for index in filled:
            texts[index] = was[index]
        row = self.encoding.row(texts, Operation.UPDATE)
        row.from_old = len(filled) if self._whole(marked_full=marked_full) else 0
        changed = {
            index
            for index in self.plan.compared
            if index in known and self.encoding.compared(index, was[index]) != row.cells[index]
        }
        if not (changed or self.plan.keyless):
            return [self._named(row, texts, texts, xid=xid)]
        before = was if changed.intersection(self.plan.identity) else texts
        return [self._tombstone(was, known, xid=xid), self._named(row, texts, before, xid=xid)]

    def key_of(self, change: Insert | Update | Delete) -> tuple[bytes, ...]:
        """The identity of the row that a change is about, for people."""
        return key_of(self._places, self.plan, change)

    def delete(self, old: Tuple, *, marked_full: bool, xid: int) -> list[Row]:
        """The tombstone of a DELETE."""
        return [self._tombstone(self._texts(old), self._known(marked_full=marked_full), xid=xid)]

    def _tombstone(self, was: list[Field], known: Sequence[int], *, xid: int) -> Row:
        return self._named(self.encoding.tombstone(was, known), was, was, xid=xid)

    def _texts(self, fields: Tuple) -> list[Field]:
        """The tuple's fields in the order of the plan's columns; a column the tuple lacks is NULL."""
        texts: list[Field] = [None] * len(self.plan.columns)
        for number, index in self._places:
            texts[index] = fields[number]
        return texts

    def _whole(self, *, marked_full: bool) -> bool:
        return self.plan.keyless or (marked_full and self._old_is_full)

    def _known(self, *, marked_full: bool) -> Sequence[int]:
        """The columns that the old tuple truly has."""
        return range(len(self.plan.columns)) if self._whole(marked_full=marked_full) else self.plan.identity

    def _named(self, row: Row, texts: list[Field], before: list[Field] | None, *, xid: int) -> Row:
        """A row with holes gets the names by which it is found again; every row where its old place is looked up."""
        if self.plan.moving or UNCHANGED in row.cells:
            row.names = Names(self._identity(texts), () if before is None else self._identity(before), xid)
        return row

    def _identity(self, texts: list[Field]) -> tuple[bytes, ...]:
        name = self.plan.table.full_name
        if self.plan.keyless:
            raise FrameError(
                f"{name} has no key, and a row of it came without a value and without a full old row",
                hint=f"See that REPLICA IDENTITY FULL is set for {name}, then copy the table again.",
            )
        identity = []
        for index in self.plan.identity:
            text = texts[index]
            if isinstance(text, Unchanged):
                raise FrameError(
                    f'{name}: a row came without a value for column "{self.plan.columns[index].name}", which belongs to the key',
                    hint="See which columns the replica identity of the table has, then copy the table again.",
                )
            identity.append(text or b"")
        return tuple(identity)
