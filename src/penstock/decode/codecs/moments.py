"""Dates, timestamps, times of day. What is outside the server's range becomes the bound on that side."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING

from penstock.decode.codecs.unfit import INFINITY, OUT_OF_RANGE, UnfitError
from penstock.typemap import Codec, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    Encoder = Callable[[bytes], bytes]

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


def bounded_encoder(codec: Codec) -> Encoder:
    """DATE32 and DATETIME64."""
    read = _date if codec.kind is Kind.DATE32 else _timestamp
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


def time_of_day(text: bytes) -> bytes:
    """Microseconds since midnight; 24:00:00 is legal."""
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
