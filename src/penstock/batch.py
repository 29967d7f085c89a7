"""What a decoder hands out: rows of one plan as a Native block, and what happened between them.

A block is columnar and ready to send. Rows whose UPDATE left out unchanged out-of-line values have holes, which are
completed before the block is sent (design.md, invariant 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from penstock.errors import BadDataError, UnfitKeyError, UnfitValueError
from penstock.spill import Spilled, read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from penstock.errors import TableError
    from penstock.plan import Plan

_SHOWN_CHARACTERS = 100


@dataclass(slots=True)
class EncodedColumn:
    """One Native column: the null map (one byte a row, 1 = NULL; None for a type that is not Nullable), and the values.

    The values stand row after row. ``spread`` makes of them what the block holds, where that is something else: of arrays, whose
    cells are a varint length and as many bytes, it makes offsets and elements (``decode/spread.py``).
    """

    nulls: bytes | None
    values: bytes
    spread: Callable[[bytes], bytes] | None = field(default=None, compare=False, repr=False)
    pieces: list[bytes | memoryview | Spilled] | None = None  # instead of the values, where some of them wait in a file

    def chunks(self) -> Iterator[bytes | memoryview]:
        """What the block holds of it."""
        if self.nulls is not None:
            yield self.nulls
        if self.pieces is not None and self.spread is None:
            yield from map(read, self.pieces)
            return
        values = self.whole
        yield self.spread(values) if self.spread else values

    @property
    def whole(self) -> bytes:
        """The values, in memory."""
        return self.values if self.pieces is None else b"".join(map(read, self.pieces))

    def extended(self, more: EncodedColumn) -> EncodedColumn:
        """With the values of more rows behind."""
        nulls = None if self.nulls is None or more.nulls is None else self.nulls + more.nulls
        pieces = None if self.pieces is None else [*self.pieces, more.values]
        return EncodedColumn(nulls, self.values + more.values, self.spread, pieces)


@dataclass(frozen=True, slots=True)
class Value:
    """One encoded value: ``data`` is what stands in the column's values (a NULL's stands for the type's zero)."""

    null: bool
    data: bytes | Spilled
    unfit: int = 0  # the number of the reason, where the type could not hold it

    @property
    def whole(self) -> bytes:
        """The data, in memory."""
        return read(self.data)


@dataclass(frozen=True, slots=True)
class Hole:
    """A row with unchanged values that no earlier row of its batch could fill; of a plan with ``moving`` columns every row.

    ``columns`` are indices into the plan's columns. ``offsets`` give, a column, the byte in ``EncodedColumn.values`` at which the
    placeholder stands (the encoding of the type's zero: one 0 byte for a String, ``width`` 0 bytes otherwise).
    ``identity`` is PostgreSQL's text of the plan's identity columns; ``old_identity`` differs where the same UPDATE changed the key, and is
    empty for an INSERT: a row filter made it of an UPDATE, and what stood there before is not known to be that row.
    """

    row: int
    columns: tuple[int, ...]
    offsets: tuple[int, ...]
    identity: tuple[bytes, ...]
    old_identity: tuple[bytes, ...]
    version: int  # of the row: epoch, commit LSN, ordinal
    xid: int  # of its transaction, from Begin
    after: int = -1  # the earlier row of this batch, itself with a hole, that held the same values; -1: none


@dataclass(frozen=True, slots=True)
class Unfit:
    """Values of one column that their ClickHouse type could not hold, and why. ``key`` is the identity of the first one's row."""

    column: str
    reason: str  # one of REASONS, or REFUSED_JSON
    count: int
    key: tuple[bytes, ...] = ()

    @property
    def counter(self) -> str:
        """Under which name it is counted."""
        return f"{UNFIT}{self.column}: {self.reason}"


REASONS = {
    1: "nan",  # NaN of a numeric
    2: "infinity",  # ±infinity of a numeric, date or timestamp
    3: "too many digits",  # numeric
    4: "out of range",  # date, timestamp
    5: "other dimensions",  # an array with more or fewer than declared, a sparse vector with too many
    6: "lower bound",  # an array that does not begin at 1: its elements are kept
    7: "null",  # where ClickHouse has no NULL: arrays and maps
    8: "no object",  # JSON that is none
}
"""Why a value did not fit. The numbers are shared with the compiled decoder."""
UNFIT = "unfit "
"""How the counters of unfit values begin."""
REFUSED_JSON = "refused by JSON"
"""The same of JSON that ClickHouse itself has looked at (``clickhouse/documents.py``)."""


@dataclass(slots=True)
class Batch:
    """Rows of one plan, in stream or copy order.

    ``floor`` is the position that may be confirmed while this batch is not durable: the last one reached before
    its first row. It is 0 for copied rows. ``committed_at`` is the commit time of its oldest row, microseconds since 1970,
    0 for copied rows.
    """

    plan: Plan
    rows: int
    floor: int
    committed_at: int
    columns: list[EncodedColumn]  # the plan's columns, then its wire_metadata
    holes: tuple[Hole, ...] = ()
    folded: int = 0  # unchanged values that an earlier row of the batch filled
    from_old: int = 0  # unchanged values that a full old tuple filled
    unfit: tuple[Unfit, ...] = ()
    text_bytes: int = 0  # of PostgreSQL's text, before encoding

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The body of ``INSERT … FORMAT Native``: exactly one block (ClickHouse manual, Formats, Native)."""
        types = [*((column.name, column.wire) for column in self.plan.columns), *self.plan.wire_metadata]
        yield varint(len(types)) + varint(self.rows)
        for (name, wire), column in zip(types, self.columns, strict=True):
            yield _string(name) + _string(wire)
            yield from column.chunks()

    @property
    def size(self) -> int:
        """Bytes of the body in memory, headers left out."""
        return sum(len(column.values) + len(column.nulls or b"") for column in self.columns)

    def complete(self, fills: Mapping[tuple[int, int], Value]) -> None:
        """Put values into holes, by (row, column). Holes left over become NULL, or the type's zero: their rows must be marked deleted.

        No values are missing afterwards: a batch that is sent again must not be filled again.
        """
        for index, column in enumerate(self.columns[: len(self.plan.columns)]):
            holes = [hole for hole in self.holes if index in hole.columns]
            places = sorted(
                (hole.offsets[hole.columns.index(index)], hole.row) for hole in holes if (hole.row, index) in fills
            )
            if column.nulls is not None:
                column.nulls = _marked(column.nulls, [hole.row for hole in holes if (hole.row, index) not in fills])
            if places:
                _fill(
                    column,
                    places,
                    self.plan.columns[index].codec.width or 1,
                    {row: fills[row, index] for _, row in places},
                )
        self.holes = tuple(replace(hole, columns=(), offsets=()) for hole in self.holes) if self.plan.moving else ()

    def values(self, index: int) -> list[Value]:
        """One of the plan's columns, cut into its values."""
        whole, width = self.columns[index].whole, self.plan.columns[index].codec.width
        nulls = self.columns[index].nulls or bytes(self.rows)
        cells = (whole[start : start + width] for start in range(0, self.rows * width, width)) if width else cut(whole)
        return [Value(bool(null), data) for null, data in zip(nulls, cells, strict=True)]

    def stamp(self, version: int) -> None:
        """Give every row this version."""
        self.columns[len(self.plan.columns)].values = version.to_bytes(16, "little") * self.rows

    def mark_deleted(self, rows: list[int]) -> None:
        """Turn rows into tombstones: what they were about is gone from the source, and a delete follows in the stream."""
        flags = self.columns[len(self.plan.columns) + 1]
        flags.values = _marked(flags.values, rows)

    def leave_out(self, rows: Collection[int]) -> None:
        """Drop these rows of a batch that has no holes any more."""
        kept = [row for row in range(self.rows) if row not in rows]
        for index, column in enumerate(self.columns):
            if index < len(self.plan.columns):
                cells = [value.whole for value in self.values(index)]
            else:  # of our own, all of one width
                width = len(column.values) // self.rows
                cells = [column.values[row * width : (row + 1) * width] for row in range(self.rows)]
            nulls = None if column.nulls is None else bytes(column.nulls[row] for row in kept)
            self.columns[index] = EncodedColumn(nulls, b"".join(cells[row] for row in kept), column.spread)
        self.rows = len(kept)


def _marked(flags: bytes, rows: Iterable[int]) -> bytes:
    """One byte a row, 1 in these."""
    marked = bytearray(flags)
    for row in rows:
        marked[row] = 1
    return bytes(marked)


def _fill(column: EncodedColumn, places: list[tuple[int, int]], placeholder: int, values: Mapping[int, Value]) -> None:
    pieces: list[bytes | memoryview | Spilled] = []
    old = memoryview(column.values)
    done = 0
    for offset, row in places:
        pieces += (old[done:offset], values[row].data)
        done = offset + placeholder
    pieces.append(old[done:])
    whole = [each for each in pieces if not isinstance(each, Spilled)]
    if len(whole) == len(pieces):
        column.values = b"".join(whole)
    else:
        column.pieces = pieces  # the values stay for the size, and for what is cut from them
    if column.nulls is not None:
        nulls = bytearray(column.nulls)
        for _, row in places:
            nulls[row] = values[row].null
        column.nulls = bytes(nulls)


def cut(values: bytes) -> Iterator[bytes]:
    """The values of a column whose widths vary, each with its length before it."""
    place = 0
    while place < len(values):
        length, start = read_varint(values, place)
        yield values[place : start + length]
        place = start + length


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """The number that stands there as ``varint`` writes it, and where it ends."""
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, place


def varint(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _string(text: str) -> bytes:
    data = text.encode()
    return varint(len(data)) + data


@dataclass(frozen=True, slots=True)
class Relation:
    """A Relation message: the columns' names, type oids and modifiers as the stream has them from here on."""

    oid: int
    schema: str
    name: str
    replica_identity: str  # 'd', 'n', 'f', 'i'
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column of a Relation message. ``in_key`` is its flag bit: part of the replica identity."""

    name: str
    type_oid: int
    modifier: int
    in_key: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    """A Truncate message: everything these relations held below ``version`` is gone."""

    oids: tuple[int, ...]
    version: int
    cascade: bool
    restart_identity: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that must stop its table: the decoder skips the table from here on. ``key`` is PostgreSQL's text of its identity."""

    plan: Plan
    column: str
    reason: str  # one of REASONS, REFUSED_JSON or "malformed"
    in_key: bool
    key: tuple[bytes, ...] = ()

    @property
    def error(self) -> TableError:
        """What it means for the table. A key is named, but where it is the value that does not fit."""
        where = f'column "{self.column}" of {self.plan.table.full_name}'
        hint = f'Set types = {{ {self.column} = "String" }} for the table, and copy it again'
        if self.in_key and self.reason != "malformed":
            problem = f"{where} is part of the key and holds a value that ClickHouse cannot: {self.reason}"
            return UnfitKeyError(problem, hint=f"{hint}.")
        if shown := shown_key(self.plan, self.key):
            where += f", in the row with {shown},"
        if self.reason == "malformed":
            return BadDataError(f"{where} holds a text that is not of its type", hint=f"{hint}; and report it.")
        problem = f'{where} holds a value that ClickHouse cannot ({self.reason}), and on_unfit is "fail"'
        return UnfitValueError(problem, hint=f'{hint}; or set on_unfit = "null".')


def shown_key(plan: Plan, key: tuple[bytes, ...]) -> str:
    """``id = 5``, for people; empty without a key."""
    names = [plan.columns[index].name for index in plan.identity]
    texts = (value.decode(errors="backslashreplace") for value in key)
    cut = (text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…" for text in texts)
    return ", ".join(f"{name} = {text}" for name, text in zip(names, cut, strict=False))


Item = Batch | Relation | Truncate | Rejected

LSN_BITS = 56
ORDINAL_BITS = 64
RECORD_BITS = 8
"""Of an ordinal, below the LSN of the row's WAL record. A LSN is a multiple of 8: so 2048 rows of one record have room before the next."""


def version_of(epoch: int, commit_lsn: int, ordinal: int) -> int:
    """``_version``: epoch (8 bits), commit LSN (56 bits), ordinal of the row within its transaction (64 bits; docs/design/0002)."""
    return (epoch << LSN_BITS | commit_lsn) << ORDINAL_BITS | ordinal


def commit_of(version: int) -> int:
    """The commit LSN of a version."""
    return version >> ORDINAL_BITS & (1 << LSN_BITS) - 1


MOST_EPOCHS = 255
"""After the first: an epoch has 8 bits of the version."""


def epoch_of(starts: Sequence[int], commit_lsn: int) -> int:
    """The last epoch that has begun at this commit; ``starts`` are where the epochs after the first, 0, begin.

    A later one may begin before an earlier one: then what was between never happened.
    """
    epoch = len(starts)
    while epoch and commit_lsn < starts[epoch - 1]:
        epoch -= 1
    return epoch
