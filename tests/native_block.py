"""A reader of ClickHouse's Native blocks, independent of the writer: what a block says, as Python values."""

from __future__ import annotations

import re
import struct
import uuid
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.batch import Batch

_FIXED = {
    "Int16": "<h",
    "Int32": "<i",
    "Int64": "<q",
    "UInt8": "<B",
    "UInt32": "<I",
    "Float32": "<f",
    "Float64": "<d",
    "Bool": "<?",
    "Date32": "<i",
    "DateTime64": "<q",
    "Time64": "<q",
    "Enum8": "<b",
}


class _Body:
    def __init__(self, body: bytes) -> None:
        self.body = body
        self.place = 0

    def take(self, length: int) -> bytes:
        part = self.body[self.place : self.place + length]
        assert len(part) == length, "the block is cut off"
        self.place += length
        return part

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def string(self) -> bytes:
        return self.take(self.varint())


def read_block(body: bytes) -> list[dict[str, Any]]:
    """The rows of one block. Days and microseconds stay numbers; String is bytes."""
    source = _Body(body)
    width, rows = source.varint(), source.varint()
    columns = {}
    for _ in range(width):
        name, wire = source.string().decode(), source.string().decode()
        columns[name] = _read_column(source, wire, rows)
    assert source.place == len(body), "the block has bytes left over"
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    return read_block(b"".join(batch.chunks()))


def _counts(source: _Body, rows: int) -> list[int]:
    ends = struct.unpack(f"<{rows}Q", source.take(8 * rows))
    return [end - start for start, end in zip((0, *ends), ends, strict=False)]


def _read_column(source: _Body, wire: str, rows: int) -> list[Any]:
    if wire.startswith("Nullable("):
        nulls = source.take(rows)
        assert set(nulls) <= {0, 1}
        values = _read_column(source, wire[9:-1], rows)
        return [None if null else value for null, value in zip(nulls, values, strict=True)]
    if wire.startswith("Array("):
        counts = _counts(source, rows)
        elements = iter(_read_column(source, wire[6:-1], sum(counts)))
        return [[next(elements) for _ in range(count)] for count in counts]
    if wire.startswith("Map("):
        counts = _counts(source, rows)
        keys, values = (_read_column(source, each, sum(counts)) for each in wire[4:-1].split(", ", 1))
        pairs = zip(keys, values, strict=True)
        return [dict(next(pairs) for _ in range(count)) for count in counts]
    read = _reader(wire)
    return [read(source) for _ in range(rows)]


def _reader(wire: str) -> Callable[[_Body], Any]:
    base = wire.partition("(")[0]
    if base in _FIXED:
        layout = struct.Struct(_FIXED[base])
        return lambda source: layout.unpack(source.take(layout.size))[0]
    if base == "String":
        return _Body.string
    if base == "UInt128":
        return lambda source: int.from_bytes(source.take(16), "little")
    if base == "UUID":
        return lambda source: uuid.UUID(
            int=int.from_bytes(source.take(8), "little") << 64 | int.from_bytes(source.take(8), "little")
        )
    if found := re.fullmatch(r"Decimal\((\d+), (\d+)\)", wire):
        precision, scale = int(found[1]), int(found[2])
        width = next(size for size, digits in ((4, 9), (8, 18), (16, 38), (32, 76)) if precision <= digits)
        return lambda source: _decimal(int.from_bytes(source.take(width), "little", signed=True), scale)
    raise AssertionError(f"no reader for {wire}")


def _decimal(number: int, scale: int) -> Decimal:
    with localcontext(prec=100):
        return Decimal(number).scaleb(-scale)


def brief(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """These columns only."""
    return [tuple(row[name] for name in names) for row in rows]


def states(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What became of which row."""
    return brief(rows, "id", "note", "_is_deleted")
