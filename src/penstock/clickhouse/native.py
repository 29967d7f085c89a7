"""Cuts Native blocks into encoded values, without decoding them (ClickHouse manual, Formats, Native)."""

from __future__ import annotations

import re
import struct
from itertools import islice
from typing import TYPE_CHECKING

from penstock.batch import Value, read_varint, varint

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTHS = {
    "UInt8": 1,
    "Bool": 1,
    "Int16": 2,
    "UInt32": 4,
    "Int32": 4,
    "Float32": 4,
    "Date32": 4,
    "Int64": 8,
    "Float64": 8,
    "UUID": 16,
    "UInt128": 16,
}
_DECIMAL = re.compile(r"Decimal\((\d+),")
_VECTOR = "Array(Float32)"  # a value by itself; every other Array within an Array is its next dimension


def read_blocks(body: bytes) -> Iterator[list[list[Value]]]:
    """Each block's columns, each a list of its rows' values."""
    place = 0
    while place < len(body):
        width, place = read_varint(body, place)
        rows, place = read_varint(body, place)
        columns = []
        for _ in range(width):
            _, place = _string(body, place)
            type_, place = _string(body, place)
            column, place = _column(body, place, type_.decode(), rows)
            columns.append(column)
        yield columns


def _column(body: bytes, place: int, type_: str, rows: int) -> tuple[list[Value], int]:
    nulls = bytes(rows)
    if type_.startswith("Nullable("):
        type_ = type_.removeprefix("Nullable(")[:-1]
        nulls, place = body[place : place + rows], place + rows
    if type_.startswith(("Array(", "Map(")):
        cells, place = _cells(body, place, type_, rows)
        return [Value(null=False, data=varint(len(cell)) + cell) for cell in cells], place
    if type_ == "String":
        values = []
        for null in nulls:
            start = place
            length, place = read_varint(body, place)
            place += length
            values.append(Value(bool(null), body[start:place]))
        return values, place
    width = _width(type_)
    end = place + rows * width
    cut = (body[start : start + width] for start in range(place, end, width))
    return [Value(bool(null), data) for null, data in zip(nulls, cut, strict=True)], end


def _cells(body: bytes, place: int, type_: str, rows: int) -> tuple[list[bytes], int]:
    """Arrays and maps as cells, without their lengths (``typemap.NESTED``)."""
    ends = struct.unpack_from(f"<{rows}Q", body, place)
    counts = [end - start for start, end in zip((0, *ends), ends, strict=False)]
    items, place = _items(body, place + 8 * rows, type_, ends[-1] if rows else 0)
    each = iter(items)
    return [count.to_bytes(4, "little") + b"".join(islice(each, count)) for count in counts], place


def _items(body: bytes, place: int, type_: str, count: int) -> tuple[list[bytes], int]:
    """What stands in the cells: a map's pairs, an array's next dimension, or its elements with a byte for NULL where they have it."""
    if type_.startswith("Map("):
        key_type, value_type = type_.removeprefix("Map(")[:-1].split(", ", 1)
        keys, place = _column(body, place, key_type, count)
        values, place = _column(body, place, value_type, count)
        return [key.whole + bytes([value.null]) + value.whole for key, value in zip(keys, values, strict=True)], place
    inner = type_.removeprefix("Array(")[:-1]
    if inner.startswith("Array(") and inner != _VECTOR:
        return _cells(body, place, inner, count)
    elements, place = _column(body, place, inner, count)
    if inner.startswith("Nullable("):
        return [bytes([element.null]) + element.whole for element in elements], place
    return [element.whole for element in elements], place


def _width(type_: str) -> int:
    if type_.startswith(("DateTime64(", "Time64(")):
        return 8
    if found := _DECIMAL.match(type_):
        digits = int(found[1])
        return 4 if digits <= 9 else 8 if digits <= 18 else 16 if digits <= 38 else 32
    return _WIDTHS[type_]


def _string(body: bytes, place: int) -> tuple[bytes, int]:
    length, place = read_varint(body, place)
    return body[place : place + length], place + length
