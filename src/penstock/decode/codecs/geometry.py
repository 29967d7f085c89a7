"""PostGIS's values: hexadecimal EWKB, as PostgreSQL prints it, becomes WKT behind its SRID: ``SRID=4326;POINT Z (1 2 3)``.

Written as ST_AsText does, with as many digits as it takes to get the same number back. No library does: shapely rounds to 16 digits,
and knows no curves (PostGIS manual, ST_AsEWKB; OGC 06-103r4 for the types' numbers). What is not understood stays as it was printed.
"""

from __future__ import annotations

import binascii
import math
import struct
from dataclasses import dataclass

from penstock.decode.codecs.texts import string

Z_FLAG, M_FLAG, SRID_FLAG = 0x8000_0000, 0x4000_0000, 0x2000_0000
MOST_LEVELS = 32
_NAMES = {
    1: "POINT",
    2: "LINESTRING",
    3: "POLYGON",
    4: "MULTIPOINT",
    5: "MULTILINESTRING",
    6: "MULTIPOLYGON",
    7: "GEOMETRYCOLLECTION",
    8: "CIRCULARSTRING",
    9: "COMPOUNDCURVE",
    10: "CURVEPOLYGON",
    11: "MULTICURVE",
    12: "MULTISURFACE",
    15: "POLYHEDRALSURFACE",
    16: "TIN",
    17: "TRIANGLE",
}
_LINES, _POLYGONS = (2, 8), (3, 17)
_UNTAGGED = {4: 1, 5: 2, 6: 3, 9: 2, 10: 2, 11: 2, 12: 3, 15: 3, 16: 17}
"""The members that stand in a collection without their name."""


def geometry(text: bytes) -> bytes:
    """A geometry or geography."""
    try:
        return string(_Ewkb(binascii.unhexlify(text)).whole().encode())
    except (ValueError, struct.error, KeyError):
        return string(text)


@dataclass(slots=True)
class _Ewkb:
    data: bytes
    place: int = 0
    order: str = "<"
    width: int = 2

    def whole(self) -> str:
        srid, text = self._shape(-1, 0)
        if self.place != len(self.data):
            raise ValueError("there is more behind the geometry")
        return f"SRID={srid};{text}" if srid else text

    def _shape(self, untagged: int, level: int) -> tuple[int, str]:
        if level == MOST_LEVELS:
            raise ValueError("nested too deeply")
        self.order = {0: ">", 1: "<"}[self._take("B")]
        flags = self._take("I")
        kind = flags & 0x0FFF_FFFF
        srid = self._take("i") if flags & SRID_FLAG else 0
        self.width = 2 + bool(flags & Z_FLAG) + bool(flags & M_FLAG)
        dimensions = (" Z" if flags & Z_FLAG else " ") + ("M" if flags & M_FLAG else "")
        name = "" if kind == untagged else _NAMES[kind] + ("" if dimensions == " " else dimensions + " ")
        body = self._body(kind, level)
        if not body:
            return srid, f"{name.rstrip()} EMPTY".lstrip() if name else "EMPTY"
        return srid, f"{name}({body})"

    def _body(self, kind: int, level: int) -> str:
        if kind == 1:
            numbers = self._numbers()
            return "" if all(math.isnan(each) for each in numbers) else _written(numbers)
        if kind in _LINES:
            return self._points()
        if kind in _POLYGONS:
            return ",".join(f"({self._points()})" for _ in range(self._take("I")))
        return ",".join(self._shape(_UNTAGGED.get(kind, -1), level + 1)[1] for _ in range(self._take("I")))

    def _points(self) -> str:
        return ",".join(_written(self._numbers()) for _ in range(self._take("I")))

    def _numbers(self) -> tuple[float, ...]:
        found = struct.unpack_from(f"{self.order}{self.width}d", self.data, self.place)
        self.place += 8 * self.width
        return found

    def _take(self, form: str) -> int:
        (number,) = struct.unpack_from(self.order + form, self.data, self.place)
        self.place += struct.calcsize(self.order + form)
        return int(number)


def _written(numbers: tuple[float, ...]) -> str:
    return " ".join(_number(each) for each in numbers)


def _number(number: float) -> str:
    """The shortest of 15 to 17 digits that comes back as the same number."""
    for digits in (15, 16):
        text = f"{number:.{digits}g}"
        if float(text) == number:
            return text
    return f"{number:.17g}"
