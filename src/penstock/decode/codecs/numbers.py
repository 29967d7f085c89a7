"""Integers, floats, numerics, booleans."""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING

from penstock.decode.codecs.unfit import INFINITY, NAN, TOO_MANY_DIGITS, UnfitError
from penstock.typemap import Codec, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    Encoder = Callable[[bytes], bytes]

_INTEGER = re.compile(rb"-?[0-9]+")
_UNSIGNED = re.compile(rb"[0-9]+")
_FLOAT = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")
_DECIMAL = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]+))?")


def integer_encoder(width: int, *, signed: bool) -> Encoder:
    """Two's complement, little-endian."""
    pattern = _INTEGER if signed else _UNSIGNED

    def encode_integer(text: bytes) -> bytes:
        if not pattern.fullmatch(text):
            raise ValueError("no integer")
        try:
            return int(text).to_bytes(width, "little", signed=signed)
        except OverflowError:
            raise ValueError("not in the type's range") from None

    return encode_integer


def float_encoder(kind: Kind, *, in_key: bool) -> Encoder:
    """Of a key -0 is 0, as PostgreSQL calls them equal."""
    pack = struct.Struct("<f" if kind is Kind.FLOAT32 else "<d").pack
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


def decimal_encoder(codec: Codec) -> Encoder:
    """NULL stands in for what does not fit; where that cannot be, zero for NaN, else the nearest value."""
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


def boolean(text: bytes) -> bytes:
    """PostgreSQL prints t and f."""
    if text not in (b"t", b"f"):
        raise ValueError("no boolean")
    return b"\1" if text == b"t" else b"\0"
