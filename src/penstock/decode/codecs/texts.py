"""Texts as they are, bytes in three forms, UUIDs, JSON."""

from __future__ import annotations

import base64
import binascii
import re

from penstock.batch import varint
from penstock.decode.codecs.unfit import NO_OBJECT, UnfitError

_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BLANK = b" \t\n\r"


def string(text: bytes) -> bytes:
    """The text, any bytes."""
    return varint(len(text)) + text


def bytea(text: bytes) -> bytes:
    """The raw bytes."""
    return string(_unhexed(text))


def hexadecimal(text: bytes) -> bytes:
    """A bytea's digits."""
    return string(binascii.hexlify(_unhexed(text)))


def base_64(text: bytes) -> bytes:
    """A bytea in base64."""
    return string(base64.b64encode(_unhexed(text)))


def _unhexed(text: bytes) -> bytes:
    if text[:2] != b"\\x":
        raise ValueError("no hex form")
    return binascii.unhexlify(text[2:])


def uuid(text: bytes) -> bytes:
    """Two little-endian halves, the high one first."""
    if not _UUID.fullmatch(text):
        raise ValueError("no uuid")
    raw = binascii.unhexlify(text.replace(b"-", b""))
    return raw[:8][::-1] + raw[8:][::-1]


def json(text: bytes) -> bytes:
    """JSON, if an object is at its top: ClickHouse's type holds nothing else."""
    if text.lstrip(_BLANK)[:1] != b"{":
        raise UnfitError(NO_OBJECT, string(b"{}"), bounded=False)
    return string(text)
