"""PostgreSQL's text of one value → the bytes of one value in a ClickHouse Native column. One reader a ``typemap.Kind``.

The texts are exactly what PostgreSQL prints under the session settings of ``postgres/connection.py``: no blanks, no plus
sign, no underscores. Anything else raises ValueError ("malformed"). A value that is well written but has no place in its
type raises UnfitError, which carries what stands in for it:

* dates and timestamps: the bound of the server's range on that side, whether the column is Nullable or not;
* numerics: NULL in a Nullable column. Elsewhere zero for NaN, the nearest bound for ±Infinity and for too many integer
  digits, and the value with its last digits cut off (towards zero) for too many digits after the point.
"""

from __future__ import annotations

import binascii
import math
import re
import struct
from datetime import date
from typing import TYPE_CHECKING

from penstock.batch import REASONS, Value, varint
from penstock.errors import BadDataError
from penstock.typemap import Codec, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    Encoder = Callable[[bytes], bytes]

NAN, INFINITY, TOO_MANY_DIGITS, OUT_OF_RANGE = REASONS

_INTEGER = re.compile(rb"-?[0-9]+")
_UNSIGNED = re.compile(rb"[0-9]+")
_FLOAT = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")
_DECIMAL = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]+))?")
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DAY = rb"([0-9]{4,7})-([0-9]{2})-([0-9]{2})"
_CLOCK = rb"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
_DATE = re.compile(_DAY + rb"( BC)?")
_TIMESTAMP = re.compile(_DAY + b" " + _CLOCK + rb"(?:([+-])([0-9]{2})(?::([0-9]{2})(?::([0-9]{2}))?)?)?( BC)?")
_TIME = re.compile(_CLOCK)

_SECOND = 1_000_000
_DAY_SECONDS = 86_400
_UNIX_EPOCH = date(1970, 1, 1).toordinal()
_DAYS_IN_400_YEARS = 146_097
_INFINITE = (b"infinity", b"-infinity")


class UnfitError(Exception):
    """A value that its ClickHouse type cannot hold. ``nearest`` stands in for it; ``bounded``: also where NULL is possible."""

    def __init__(self, reason: int, nearest: bytes, *, bounded: bool) -> None:
        super().__init__(REASONS[reason])
        self.reason = reason
        self.nearest = nearest
        self.bounded = bounded


def zero_of(codec: Codec) -> bytes:
    """The encoding of the type's zero: what stands for NULL, and in a hole."""
    return bytes(codec.width or 1)


def encode(codec: Codec, text: bytes | None) -> Value:
    """Encode a single value, None for NULL.

    An unfit numeric comes back as NULL, with the value that a column without NULL takes as its data. Raises BadDataError for a
    text that PostgreSQL does not print.
    """
    if text is None:
        return Value(null=True, data=zero_of(codec))
    try:
        return Value(null=False, data=encoder_of(codec)(text))
    except UnfitError as error:
        return Value(null=not error.bounded, data=error.nearest, unfit=error.reason)
    except ValueError:
        raise BadDataError(
            f"a text is not a {codec.kind.name.lower()} as PostgreSQL prints it",
            hint="Check DateStyle, IntervalStyle and bytea_output of the source's session.",
        ) from None


def encoder_of(codec: Codec, *, in_key: bool = False) -> Encoder:
    """The function that encodes texts of this type. Floats of a key are made equal where PostgreSQL calls them equal: -0 is 0."""
    match codec.kind:
        case Kind.INT16 | Kind.INT32 | Kind.INT64:
            return _integer_encoder(codec.width, _INTEGER, signed=True)
        case Kind.UINT32:
            return _integer_encoder(codec.width, _UNSIGNED, signed=False)
        case Kind.FLOAT32 | Kind.FLOAT64:
            return _float_encoder(codec, in_key=in_key)
        case Kind.DECIMAL:
            return _decimal_encoder(codec)
        case Kind.DATE32 | Kind.DATETIME64:
            return _bounded_encoder(codec, _date if codec.kind is Kind.DATE32 else _timestamp)
        case _:
            return _PLAIN[codec.kind]


def _integer_encoder(width: int, pattern: re.Pattern[bytes], *, signed: bool) -> Encoder:
    def encode_integer(text: bytes) -> bytes:
        if not pattern.fullmatch(text):
            raise ValueError("no integer")
        try:
            return int(text).to_bytes(width, "little", signed=signed)
        except OverflowError:
            raise ValueError("not in the type's range") from None

    return encode_integer


def _float_encoder(codec: Codec, *, in_key: bool) -> Encoder:
    pack = struct.Struct("<f" if codec.kind is Kind.FLOAT32 else "<d").pack
    named = {b"NaN": pack(math.nan), b"Infinity": pack(math.inf), b"-Infinity": pack(-math.inf)}

    def encode_float(text: bytes) -> bytes:
        if text in named:
            return named[text]
        if not _FLOAT.fullmatch(text):
            raise ValueError("no number")
        number = float(text)
        if math.isinf(number):
            raise ValueError("not in the type's range")
        if in_key and number == 0:
            number = 0.0
        try:
            return pack(number)
        except OverflowError:
            raise ValueError("not in the type's range") from None

    return encode_float


def _decimal_encoder(codec: Codec) -> Encoder:
    width, scale, integer_digits = codec.width, codec.scale, codec.precision - codec.scale
    most = 10**codec.precision - 1
    special = {b"NaN": (NAN, 0), b"Infinity": (INFINITY, most), b"-Infinity": (INFINITY, -most)}

    def encode_decimal(text: bytes) -> bytes:
        if text in special:
            reason, nearest = special[text]
            raise UnfitError(reason, nearest.to_bytes(width, "little", signed=True), bounded=False)
        found = _DECIMAL.fullmatch(text)
        if not found:
            raise ValueError("no number")
        minus, whole, fraction = found[1], found[2].lstrip(b"0"), (found[3] or b"").rstrip(b"0")
        number = most if len(whole) > integer_digits else int((whole + fraction[:scale].ljust(scale, b"0")) or b"0")
        data = (-number if minus else number).to_bytes(width, "little", signed=True)
        if len(whole) > integer_digits or len(fraction) > scale:
            raise UnfitError(TOO_MANY_DIGITS, data, bounded=False)
        return data

    return encode_decimal


def _bounded_encoder(codec: Codec, read: Callable[[bytes], int]) -> Encoder:
    low, high = codec.minimum, codec.maximum

    def encode_bounded(text: bytes) -> bytes:
        if text in _INFINITE:
            reason, number = INFINITY, low if text[:1] == b"-" else high
        else:
            number = read(text)
            if low <= number <= high:
                return number.to_bytes(codec.width, "little", signed=True)
            reason, number = OUT_OF_RANGE, low if number < low else high
        raise UnfitError(reason, number.to_bytes(codec.width, "little", signed=True), bounded=True)

    return encode_bounded


def _date(text: bytes) -> int:
    """Days since 1970-01-01 of ``YYYY-MM-DD``, with `` BC`` before year 1."""
    found = _DATE.fullmatch(text)
    if not found:
        raise ValueError("no date")
    return _days(int(found[1]), int(found[2]), int(found[3]), bc=found[4] is not None)


def _timestamp(text: bytes) -> int:
    """Microseconds since 1970-01-01 UTC of ``YYYY-MM-DD HH:MM:SS[.ffffff][+HH[:MM[:SS]]][ BC]``; UTC where no offset is given."""
    found = _TIMESTAMP.fullmatch(text)
    if not found:
        raise ValueError("no timestamp")
    year, month, day, hours, minutes, seconds, fraction, sign, *offset, bc = found.groups()
    if int(hours) > 23:
        raise ValueError("no time of day")
    off_hours, off_minutes, off_seconds = (int(part or 0) for part in offset)
    if off_hours > 15 or off_minutes > 59 or off_seconds > 59:
        raise ValueError("no time zone")
    ahead = (off_hours * 3600 + off_minutes * 60 + off_seconds) * _SECOND
    local = _days(int(year), int(month), int(day), bc=bc is not None) * _DAY_SECONDS * _SECOND
    return local + _clock(hours, minutes, seconds, fraction) + (ahead if sign == b"-" else -ahead)


def _time(text: bytes) -> bytes:
    found = _TIME.fullmatch(text)
    micros = _clock(*found.groups()) if found else -1
    if not 0 <= micros <= _DAY_SECONDS * _SECOND:
        raise ValueError("no time of day")
    return micros.to_bytes(8, "little", signed=True)


def _clock(hours: bytes, minutes: bytes, seconds: bytes, fraction: bytes | None) -> int:
    if int(minutes) > 59 or int(seconds) > 59:
        raise ValueError("no time of day")
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return whole * _SECOND + int((fraction or b"").ljust(6, b"0"))


def _days(year: int, month: int, day: int, *, bc: bool) -> int:
    """Days since 1970-01-01 in the Gregorian calendar, carried on before its start as PostgreSQL does; 1 BC is the year 0."""
    if year < 1:
        raise ValueError("no such day")
    cycles, year_in_cycle = divmod((1 - year if bc else year) - 1, 400)
    same = date(2001 + year_in_cycle, month, day)  # the calendar repeats after 400 years
    return (cycles - 5) * _DAYS_IN_400_YEARS + same.toordinal() - _UNIX_EPOCH


def _bool(text: bytes) -> bytes:
    if text not in (b"t", b"f"):
        raise ValueError("no boolean")
    return b"\1" if text == b"t" else b"\0"


def _string(text: bytes) -> bytes:
    return varint(len(text)) + text


def _bytea(text: bytes) -> bytes:
    if text[:2] != b"\\x":
        raise ValueError("no hex form")
    return _string(binascii.unhexlify(text[2:]))


def _uuid(text: bytes) -> bytes:
    if not _UUID.fullmatch(text):
        raise ValueError("no uuid")
    raw = binascii.unhexlify(text.replace(b"-", b""))
    return raw[:8][::-1] + raw[8:][::-1]


_PLAIN: dict[Kind, Encoder] = {
    Kind.BOOL: _bool,
    Kind.STRING: _string,
    Kind.BYTEA: _bytea,
    Kind.UUID: _uuid,
    Kind.TIME64: _time,
}
