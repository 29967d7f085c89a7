"""What ClickHouse must show of PostgreSQL's text: docs/types.md written once more, on texts alone and without a line of Penstock's.

A rule knows neither bytes nor codecs. It turns the text that PostgreSQL prints into the one that ClickHouse's toString() prints, or
says for which reason the value has no place there and what stands in for it.
"""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.sorts import Sort

LIMITS = {  # of Date32 and DateTime64, by ClickHouse's release
    "26.7": (("1900-01-01", "2299-12-31"), ("0001-01-01", "9999-12-31")),
    "26.9": (("0001-01-01", "9999-12-31"), ("0001-01-01", "9999-12-31")),
}


class Shown(NamedTuple):
    """What toString() gives, None for NULL; and for which reason it is not what PostgreSQL has."""

    text: str | None
    reason: str = ""
    bounded: bool = False  # also where NULL is possible


@dataclass(frozen=True, slots=True)
class Rules:
    """How a pipe with these settings maps values into a server of this release."""

    release: str
    nullable: bool = True
    bytea: str = "raw"

    def column(self, sort: Sort, text: str | None, *, not_null: bool) -> Shown:
        """What a column shows that PostgreSQL prints as ``text``."""
        empty = _EMPTY.get(sort.rule)
        if text is None and empty:
            return Shown(empty, "null" if self.nullable and not not_null else "")
        if text is None:
            return Shown(None if self.nullable else _ZEROS.get(sort.rule, "" if sort.rule == "text" else "0"))
        shown = self.value(sort, text)
        if shown.reason and self.nullable and not shown.bounded:
            return Shown(None, shown.reason)
        return shown

    def value(self, sort: Sort, text: str) -> Shown:
        """What stands for ``text``, or for it where NULL is impossible."""
        match sort.rule:
            case "array":
                return self._array(sort, text)
            case "date" | "timestamp":
                return self._moment(sort.rule, text)
            case "decimal" | "numeric":
                return _decimal(text, *(sort.numbers or (76, 38)))
            case "vector":
                return _vector(text)
            case "bytea":
                return Shown(self._bytea(text))
            case _:
                return Shown(_PLAIN[sort.rule](text))

    def _bytea(self, text: str) -> str:
        raw = bytes.fromhex(text[2:])
        if self.bytea == "raw":
            return raw.decode(errors="surrogateescape")
        return raw.hex() if self.bytea == "hex" else base64.b64encode(raw).decode()

    def _moment(self, rule: str, text: str) -> Shown:
        low, high = LIMITS[self.release][rule == "timestamp"]
        first, last = (" 00:00:00.000000", " 23:59:59.999999") if rule == "timestamp" else ("", "")
        if "infinity" in text:
            return Shown(low + first if text[0] == "-" else high + last, "infinity", bounded=True)
        day, *rest = text.removesuffix(" BC").split(" ")
        number = -1 if text.endswith(" BC") else int(day[:-6])
        if number < int(low[:4]):
            return Shown(low + first, "out of range", bounded=True)
        if number > int(high[:4]):
            return Shown(high + last, "out of range", bounded=True)
        return Shown(" ".join((day, *map(_padded, rest))))

    def _array(self, sort: Sort, text: str) -> Shown:
        bounds, _, listed = text.rpartition("=") if text[0] == "[" else ("", "", text)
        if text[0] == "[":
            bounds, listed = re.split("=(?={)", text, maxsplit=1)
        assert sort.element
        delimiter = ";" if sort.element.sql == "box" else ","
        if listed == "{}":
            return Shown("[]")
        if re.match("{*", listed)[0] != "{" * sort.dimensions:  # type: ignore[index]
            return Shown("[]", "other dimensions", bounded=True)
        reasons: list[str] = []
        tokens = re.finditer(r'[{}]|"(?:[^"\\]|\\.)*"|[^{}"' + delimiter + "]+|" + delimiter, listed, re.DOTALL)
        shown = "".join(self._token(sort.element, token[0], delimiter, reasons) for token in tokens)
        if bounds:
            reasons.append("lower bound")
        return Shown(shown, reasons[0] if reasons else "", bounded=True)

    def _token(self, element: Sort, token: str, delimiter: str, reasons: list[str]) -> str:
        if token in "{}" or token == delimiter:
            return {"{": "[", "}": "]"}.get(token, ",")
        if token == "NULL":
            if element.rule not in _EMPTY:
                return "NULL"
            reasons.append("null")
            return _EMPTY[element.rule]
        found = self.value(element, _unescaped(token[1:-1]) if token[0] == '"' else token)
        if found.reason:
            reasons.append(found.reason)
        if found.text is None or (found.reason and not found.bounded):
            return "NULL"
        return found.text if element.rule in _BARE else quoted(found.text)


def quoted(text: str) -> str:
    """As ClickHouse writes a String within an Array or a Map."""
    for character, mark in _MARKS.items():
        text = text.replace(character, "\\" + mark)
    return f"'{text}'"


_MARKS = {"\\": "\\", "'": "'", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\0": "0"}
_EMPTY = {"array": "[]", "hstore": "{}", "vector": "[]"}
_BARE = ("number", "float4", "float8", "bool", "decimal", "numeric", "hstore", "vector")
_ZEROS = {
    "bool": "false",
    "bytea": "",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "date": "1970-01-01",
    "timestamp": "1970-01-01 00:00:00.000000",
    "time": "00:00:00.000000",
}


def _padded(clock: str) -> str:
    """Six digits behind the point, and no zone: it is UTC's."""
    whole, _, fraction = clock.removesuffix("+00").partition(".")
    return f"{whole}.{fraction:0<6}"


def _decimal(text: str, precision: int, scale: int) -> Shown:
    """Of ``precision`` digits, ``scale`` of them behind the point."""
    minus, most = "-" if text[0] == "-" else "", _pointed("9" * precision, scale)
    if text == "NaN":
        return Shown("0", "nan")
    if "Infinity" in text:
        return Shown(minus + most, "infinity")
    whole, _, fraction = text.lstrip("-").partition(".")
    whole, fraction = whole.lstrip("0"), fraction.rstrip("0")
    if len(whole) > precision - scale:
        return Shown(minus + most, "too many digits")
    kept = fraction[:scale].rstrip("0")
    shown = (whole or "0") + ("." + kept if kept else "")
    return Shown(minus + shown if shown != "0" else "0", "too many digits" if len(fraction) > scale else "")


def _pointed(digits: str, scale: int) -> str:
    whole, fraction = digits[: len(digits) - scale] or "0", digits[len(digits) - scale :]
    return f"{whole}.{fraction}" if fraction else whole


def _float(text: str, pack: Callable[[float], bytes]) -> str:
    """The fewest digits that come back as the same number, written as JavaScript does."""
    if text in ("NaN", "Infinity", "-Infinity"):
        return {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}[text]
    number = float(text)
    with localcontext(prec=1100):
        shortest = next(each for each in _written(number) if pack(float(each)) == pack(number))
    mantissa, _, power = shortest.partition("e")
    minus, digits, exponent = "-" * mantissa.startswith("-"), re.sub(r"[-.]", "", mantissa).rstrip("0"), int(power)
    if not digits:
        return minus + "0"
    if not -7 < exponent < 21:
        return f"{minus}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{exponent}"
    if exponent < 0:
        return f"{minus}0.{'0' * (-exponent - 1)}{digits}"
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return minus + whole + ("." + fraction if fraction else "")


def _packed_real(number: float) -> bytes:
    try:
        return struct.pack("<f", number)
    except OverflowError:
        return b""


def _written(number: float) -> Iterator[str]:
    """With more and more digits: the nearest of that many, then its neighbours (beside a power of two the shortest may be one)."""
    exact = Decimal(number)
    for places in range(17):
        nearest = Decimal(f"{number:.{places}e}")
        step = Decimal((0, (1,), nearest.adjusted() - places))
        near = sorted((nearest, nearest + step, nearest - step), key=lambda each: abs(each - exact))
        yield from (f"{each:.{places}e}" for each in near)


def _vector(text: str) -> Shown:
    """Dense, or sparse and expanded."""
    shown = _PLAIN["float4"]
    if text[0] == "[":
        return Shown("[" + ",".join(map(shown, text[1:-1].split(","))) + "]")
    listed, _, dimensions = text[1:].partition("}/")
    if int(dimensions) > 1 << 20:
        return Shown("[]", "other dimensions", bounded=True)
    numbers = ["0"] * int(dimensions)
    for place, _, number in (each.partition(":") for each in listed.split(",") if each):
        numbers[int(place) - 1] = shown(number)
    return Shown("[" + ",".join(numbers) + "]")


def _hstore(text: str) -> str:
    part = r'"((?:[^"\\]|\\.)*)"'
    found = re.findall(part + f"=>(NULL|{part})", text, re.DOTALL)
    pairs = (
        f"{quoted(_unescaped(key))}:{'NULL' if value == 'NULL' else quoted(_unescaped(inner))}"
        for key, value, inner in found
    )
    return "{" + ",".join(pairs) + "}"


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


_PLAIN: dict[str, Callable[[str], str]] = {
    "text": str,
    "number": str,
    "uuid": str,
    "bool": lambda text: {"t": "true", "f": "false"}[text],
    "float4": lambda text: _float(text, _packed_real),
    "float8": lambda text: _float(text, struct.Struct("<d").pack),
    "time": _padded,
    "hstore": _hstore,
}
