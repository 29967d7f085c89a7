"""From cells to Native columns: what stands row after row while a batch is put together goes column after column into the block.

An Array is the running total of its elements, row by row, then its elements as a column of their own; a Map is an array of keys
and values (ClickHouse manual, Formats, Native). The cells are described at ``typemap.NESTED``. They also come back from ClickHouse:
every length is looked at before it is trusted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from penstock.batch import read_varint
from penstock.errors import BadDataError
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
    """The Native column of cells. Raises BadDataError for what are none."""
    node = _node(codec)
    place = 0
    try:
        while place < len(values):
            place = node.take(values, place)
    except (ValueError, IndexError):
        raise cut_off() from None
    return b"".join(node.pieces())


def cut_off() -> BadDataError:
    """What is wrong with cells that do not hold what they say."""
    return BadDataError(
        "an array, map or vector is not encoded as it should be",
        hint="This is a mistake of Penstock: please report it.",
    )


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
            length, start = read_varint(data, place)
            end = start + length
        if end > len(data):
            raise ValueError("cut off")
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
        cell, end = _cell(data, place)
        if cell:
            _used_up(cell, self._list(cell, 0, 0))
        else:
            self._end(0, 0)
        return end

    def _list(self, data: bytes, place: int, level: int) -> int:
        count, place = _count(data, place)
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
        cell, end = _cell(data, place)
        count, place = _count(cell, 0) if cell else (0, 0)
        for _ in range(count):
            place = self._keys.take(cell, place)
            self._nulls.append(cell[place])
            place = self._values.take(cell, place + 1)
        _used_up(cell, place)
        self._total += count
        self._offsets += self._total.to_bytes(8, "little")
        return end

    def pieces(self) -> Iterator[bytes | bytearray]:
        yield self._offsets
        yield from self._keys.pieces()
        yield self._nulls
        yield from self._values.pieces()


def _cell(data: bytes, place: int) -> tuple[bytes, int]:
    """What stands in the cell that begins there, and where it ends."""
    length, start = read_varint(data, place)
    if start + length > len(data):
        raise ValueError("cut off")
    return data[start : start + length], start + length


def _count(cell: bytes, place: int) -> tuple[int, int]:
    if place + 4 > len(cell):
        raise ValueError("cut off")
    return int.from_bytes(cell[place : place + 4], "little"), place + 4


def _used_up(cell: bytes, place: int) -> None:
    if place != len(cell):
        raise ValueError("something is left over")
