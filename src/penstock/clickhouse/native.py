"""Cuts Native blocks into encoded values, without decoding them (ClickHouse manual, Formats, Native)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock.batch import Value

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


def read_blocks(body: bytes) -> Iterator[list[list[Value]]]:
    """Each block's columns, each a list of its rows' values."""
    place = 0
    while place < len(body):
        width, place = _varint(body, place)
        rows, place = _varint(body, place)
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
    if type_ == "String":
        values = []
        for null in nulls:
            start = place
            length, place = _varint(body, place)
            place += length
            values.append(Value(bool(null), body[start:place]))
        return values, place
    width = _width(type_)
    end = place + rows * width
    cut = (body[start : start + width] for start in range(place, end, width))
    return [Value(bool(null), data) for null, data in zip(nulls, cut, strict=True)], end


def _width(type_: str) -> int:
    if type_.startswith(("DateTime64(", "Time64(")):
        return 8
    if found := _DECIMAL.match(type_):
        digits = int(found[1])
        return 4 if digits <= 9 else 8 if digits <= 18 else 16 if digits <= 38 else 32
    return _WIDTHS[type_]


def _varint(body: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = body[place]
        place += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, place


def _string(body: bytes, place: int) -> tuple[bytes, int]:
    length, place = _varint(body, place)
    return body[place : place + length], place + length
