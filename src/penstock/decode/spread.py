"""From cells to Native columns: what stands row after row while a batch is put together goes column after column into the block.

An Array is the running total of its elements, row by row, then its elements as a column of their own; a Map is an array of keys
and values (ClickHouse manual, Formats, Native). The cells are described at ``typemap.NESTED``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from penstock.typemap import Codec, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.plan import PlanColumn


def spreading(column: PlanColumn) -> Callable[[bytes], bytes] | None:
    """What has to be done to a column's values before they are sent; None when nothing has to be."""
    if column.codec.kind is Kind.JSON and not column.nullable:
        return _with_objects
    return partial(spread, column.codec) if column.codec.nested else None


def _with_objects(values: bytes) -> bytes:
    """An empty text is no JSON: where it stands for NULL it becomes an empty object. PostgreSQL's texts have no byte 0."""
    return values.replace(b"\0", b"\x02{}")


def spread(codec: Codec, values: bytes) -> bytes:
    """The Native column of cells."""
    node = _node(codec)
    place = 0
    while place < len(values):
        place = node.take(values, place)
    return b"".join(node.pieces())


class _Node(Protocol):
    def take(self, data: bytes, place: int) -> int:
        """Take the value that begins there; where it ends."""

    def pieces(self) -> Iterator[bytes | bytearray]:
        """The Native column."""


def _node(codec: Codec) -> _Node:
    if codec.kind is Kind.ARRAY and codec.element is not None:
        return _Lists(codec.dimensions, _node(codec.element), nullable=codec.element_nullable)
    if codec.kind is Kind.VECTOR:
        return _Lists(1, _Plain(4), nullable=False)
    return _Pairs() if codec.kind is Kind.MAP else _Plain(codec.width)


class _Plain:
    """Values as they are, of a fixed width or behind a varint length (0)."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._values = bytearray()

    def take(self, data: bytes, place: int) -> int:
        if self._width:
            end = place + self._width
        else:
            length, start = _varint(data, place)
            end = start + length
        self._values += data[place:end]
        return end

    def pieces(self) -> Iterator[bytes | bytearray]:
        yield self._values


class _Lists:
    """Lists in ``dimensions`` levels."""

    def __init__(self, dimensions: int, inner: _Node, *, nullable: bool) -> None:
        self._totals = [0] * dimensions
        self._offsets = [bytearray() for _ in range(dimensions)]
        self._nulls = bytearray() if nullable else None
        self._inner = inner

    def take(self, data: bytes, place: int) -> int:
        length, place = _varint(data, place)
        if length:
            return self._list(data, place, 0)
        self._end(0, 0)
        return place

    def _list(self, data: bytes, place: int, level: int) -> int:
        count, place = int.from_bytes(data[place : place + 4], "little"), place + 4
        for _ in range(count):
            if level + 1 < len(self._totals):
                place = self._list(data, place, level + 1)
                continue
            if self._nulls is not None:
                self._nulls.append(data[place])
                place += 1
            place = self._inner.take(data, place)
        self._end(level, count)
        return place

    def _end(self, level: int, count: int) -> None:
        self._totals[level] += count
        self._offsets[level] += self._totals[level].to_bytes(8, "little")

    def pieces(self) -> Iterator[bytes | bytearray]:
        yield from self._offsets
        if self._nulls is not None:
            yield self._nulls
        yield from self._inner.pieces()


class _Pairs:
    """Maps of texts to texts or NULL."""

    def __init__(self) -> None:
        self._total = 0
        self._offsets = bytearray()
        self._keys, self._values = _Plain(0), _Plain(0)
        self._nulls = bytearray()

    def take(self, data: bytes, place: int) -> int:
        length, place = _varint(data, place)
        count = int.from_bytes(data[place : place + 4], "little") if length else 0
        place += 4 if length else 0
        for _ in range(count):
            place = self._keys.take(data, place)
            self._nulls.append(data[place])
            place = self._values.take(data, place + 1)
        self._total += count
        self._offsets += self._total.to_bytes(8, "little")
        return place

    def pieces(self) -> Iterator[bytes | bytearray]:
        yield self._offsets
        yield from self._keys.pieces()
        yield self._nulls
        yield from self._values.pieces()


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, place
