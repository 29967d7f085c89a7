"""Values that hold others: arrays, hstore, vectors. The cells they become are described at ``typemap.NESTED``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.batch import varint
from penstock.decode.codecs.numbers import float_encoder
from penstock.decode.codecs.texts import string
from penstock.decode.codecs.unfit import LOWER_BOUND, NULL, OTHER_DIMENSIONS, UnfitError
from penstock.typemap import Codec, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Encoder = Callable[[bytes], bytes]
    Text = bytes | None

EMPTY = b"\0"
MOST_LEVELS = 6  # of an array (PostgreSQL source: MAXDIM)
MOST_DIMENSIONS = 1 << 20  # of a sparse vector that is expanded
_BOUNDS = re.compile(rb"(?:\[-?[0-9]+:-?[0-9]+\])+=")
_IN_QUOTES = rb'"((?:[^"\\]|\\.)*)"'
_QUOTED = re.compile(_IN_QUOTES, re.DOTALL)
_PAIR = re.compile(_IN_QUOTES + b"=>(?:NULL|" + _IN_QUOTES + b")", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_SPARSE = re.compile(rb"\{((?:[0-9]+:[^,:{}]+)?(?:,[0-9]+:[^,:{}]+)*)\}/([0-9]+)")
_FLOAT = float_encoder(Kind.FLOAT32, in_key=False)


@dataclass(frozen=True, slots=True)
class Element:
    """How an array's elements are encoded. Where there is no NULL for them, ``zero`` stands for it."""

    encode: Encoder
    zero: bytes
    nullable: bool


def array_encoder(codec: Codec, element: Element) -> Encoder:
    """An array's text, as array_out prints it (PostgreSQL manual, Arrays, Input and Output Syntax)."""
    delimiter = codec.delimiter.encode()
    bare = re.compile(rb'[^"\\{}' + re.escape(delimiter) + b"]+")

    def encode_array(text: bytes) -> bytes:
        bounds = _BOUNDS.match(text)
        start = bounds.end() if bounds else 0
        items, dimensions = _ArrayText(text, start, bare, delimiter).items()
        if dimensions not in (0, codec.dimensions):
            raise UnfitError(OTHER_DIMENSIONS, EMPTY, bounded=True)
        reasons: list[int] = []
        cell = _cell(b"".join(_packed(items, codec.dimensions, element, reasons)))
        if bounds:
            reasons.append(LOWER_BOUND)
        if reasons:
            raise UnfitError(reasons[0], cell, bounded=True)
        return cell

    return encode_array


Items = list["Items | Text"]


@dataclass(slots=True)
class _ArrayText:
    """Reads an array's text from left to right. What is not as array_out prints it raises ValueError."""

    text: bytes
    place: int
    bare: re.Pattern[bytes]  # an element without quotes
    delimiter: bytes

    def items(self) -> tuple[Items, int]:
        """Nested lists of texts, and how many dimensions they have; none for an empty array."""
        if self.text[self.place :] == b"{}":
            return [], 0
        rest = self.text[self.place :]
        depth = len(rest) - len(rest.lstrip(b"{"))
        if not 1 <= depth <= MOST_LEVELS:
            raise ValueError("no array")
        items = self._list(depth)
        if self.place != len(self.text):
            raise ValueError("no array")
        return items, depth

    def _list(self, depth: int) -> Items:
        self._expect(b"{")
        items: Items = []
        while True:
            items.append(self._list(depth - 1) if depth > 1 else self._element())
            mark = self.text[self.place : self.place + 1]
            self.place += 1
            if mark == b"}":
                return items
            if mark != self.delimiter:
                raise ValueError("no array")

    def _element(self) -> Text:
        pattern = _QUOTED if self.text[self.place : self.place + 1] == b'"' else self.bare
        found = pattern.match(self.text, self.place)
        if not found:
            raise ValueError("no array")
        self.place = found.end()
        if pattern is _QUOTED:
            return _unescaped(found[1])
        return None if found[0] == b"NULL" else found[0]

    def _expect(self, mark: bytes) -> None:
        if self.text[self.place : self.place + 1] != mark:
            raise ValueError("no array")
        self.place += 1


def _packed(items: Items, dimensions: int, element: Element, reasons: list[int]) -> Iterator[bytes]:
    yield len(items).to_bytes(4, "little")
    for item in items:
        if isinstance(item, list):
            yield from _packed(item, dimensions - 1, element, reasons)
        elif element.nullable:
            yield _nullable(item, element, reasons)
        else:
            yield _solid(item, element, reasons)


def _nullable(text: Text, element: Element, reasons: list[int]) -> bytes:
    if text is None:
        return b"\1" + element.zero
    try:
        return b"\0" + element.encode(text)
    except UnfitError as error:
        reasons.append(error.reason)
        return b"\0" + error.nearest if error.bounded else b"\1" + element.zero


def _solid(text: Text, element: Element, reasons: list[int]) -> bytes:
    if text is None:
        reasons.append(NULL)
        return element.zero
    try:
        return element.encode(text)
    except UnfitError as error:
        reasons.append(error.reason)
        return error.nearest


def pairs(text: bytes) -> bytes:
    """An hstore's text, as hstore_out prints it: ``"a"=>"1", "b"=>NULL``."""
    packed: list[bytes] = []
    place = 0
    while place < len(text):
        if packed:
            if text[place : place + 2] != b", ":
                raise ValueError("no hstore")
            place += 2
        found = _PAIR.match(text, place)
        if not found:
            raise ValueError("no hstore")
        key, value = found.groups()
        packed.append(string(_unescaped(key)) + (b"\1\0" if value is None else b"\0" + string(_unescaped(value))))
        place = found.end()
    return _cell(len(packed).to_bytes(4, "little") + b"".join(packed))


def vector(text: bytes) -> bytes:
    """``[1,2.5]`` of vector and halfvec, ``{1:0.5,3:2}/5`` of sparsevec."""
    if text[:1] == b"[" and text[-1:] == b"]" and len(text) > 2:
        values = [_FLOAT(each) for each in text[1:-1].split(b",")]
        return _cell(len(values).to_bytes(4, "little") + b"".join(values))
    found = _SPARSE.fullmatch(text)
    if not found or len(found[2]) > 10:
        raise ValueError("no vector")
    dimensions = int(found[2])
    places = [each.partition(b":") for each in found[1].split(b",")] if found[1] else []
    known = {_index(place, dimensions): _FLOAT(value) for place, _, value in places}
    if dimensions > MOST_DIMENSIONS:
        raise UnfitError(OTHER_DIMENSIONS, EMPTY, bounded=True)
    zero = bytes(4)
    return _cell(
        dimensions.to_bytes(4, "little") + b"".join(known.get(each, zero) for each in range(1, dimensions + 1))
    )


def _index(text: bytes, dimensions: int) -> int:
    index = int(text) if len(text) <= 10 else 0
    if not 1 <= index <= dimensions:
        raise ValueError("no vector")
    return index


def _cell(body: bytes) -> bytes:
    return varint(len(body)) + body


def _unescaped(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text) if b"\\" in text else text
