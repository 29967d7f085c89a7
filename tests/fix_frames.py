"""Frames as a walsender sends them, built field by field, and the two decoders that read them.

A test that takes ``decoder`` runs once with the plain decoder and once with the compiled one.
"""

from __future__ import annotations

import importlib
import os
import struct
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

REFERENCE: Final = "penstock.decode.reference"
NATIVE: Final = "penstock.decode._native"
POSTGRES_EPOCH = 946_684_800_000_000


def native_is_there() -> bool:
    """Whether the compiled decoder can be loaded. Where it must be there (CI), its absence is an error."""
    try:
        importlib.import_module(NATIVE)
    except ImportError:
        if os.environ.get("CI"):
            raise
        return False
    return True


IMPLEMENTATIONS = [REFERENCE, *([NATIVE] if native_is_there() else [])]


@pytest.fixture(params=IMPLEMENTATIONS, ids=[name.rpartition(".")[2] for name in IMPLEMENTATIONS])
def decoder(request: pytest.FixtureRequest) -> ModuleType:
    """A module with StreamDecoder, CopyDecoder and encode."""
    return importlib.import_module(request.param)


class Left:
    """An out-of-line value that an UPDATE left out."""

    def __repr__(self) -> str:
        return "LEFT_OUT"


LEFT_OUT: Final = Left()
Text = str | bytes | None | Left


def framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def xlog(message: bytes, *, start: int = 0, wal_end: int = 0, time: int = 0) -> bytes:
    return framed(b"w" + struct.pack(">QQq", start, wal_end or start, time) + message)


def keepalive(wal_end: int, *, reply: bool = False, time: int = 0) -> bytes:
    return framed(b"k" + struct.pack(">QqB", wal_end, time, reply))


def begin(commit_lsn: int, *, committed_at: int = POSTGRES_EPOCH, xid: int = 700) -> bytes:
    return xlog(b"B" + struct.pack(">QqI", commit_lsn, committed_at - POSTGRES_EPOCH, xid), start=commit_lsn - 1)


def commit(commit_lsn: int, end_lsn: int, *, committed_at: int = POSTGRES_EPOCH) -> bytes:
    return xlog(b"C" + struct.pack(">BQQq", 0, commit_lsn, end_lsn, committed_at - POSTGRES_EPOCH), start=end_lsn)


def origin(name: str, *, lsn: int = 0) -> bytes:
    return xlog(b"O" + struct.pack(">Q", lsn) + name.encode() + b"\0")


def type_(oid: int, name: str, *, schema: str = "public") -> bytes:
    return xlog(b"Y" + struct.pack(">I", oid) + schema.encode() + b"\0" + name.encode() + b"\0", start=0)


def message(prefix: str, content: bytes, *, transactional: bool = True, lsn: int = 0) -> bytes:
    head = struct.pack(">BQ", transactional, lsn)
    return xlog(b"M" + head + prefix.encode() + b"\0" + struct.pack(">I", len(content)) + content)


def relation(
    oid: int,
    columns: Sequence[tuple[Any, ...]],
    *,
    schema: str = "public",
    name: str = "t",
    identity: str = "d",
) -> bytes:
    """``columns``: name, type oid and, if needed, modifier (-1) and whether it is part of the identity (False)."""
    body = b"R" + struct.pack(">I", oid) + schema.encode() + b"\0" + name.encode() + b"\0" + identity.encode()
    body += struct.pack(">H", len(columns))
    for column in columns:
        column_name, type_oid, modifier, in_key = (*column, *(-1, False)[len(column) - 2 :])
        body += struct.pack(">B", in_key) + column_name.encode() + b"\0" + struct.pack(">Ii", type_oid, modifier)
    return xlog(body, start=0)


def tuple_data(values: Sequence[Text]) -> bytes:
    body = struct.pack(">H", len(values))
    for value in values:
        if value is None:
            body += b"n"
        elif isinstance(value, Left):
            body += b"u"
        else:
            text = value.encode() if isinstance(value, str) else value
            body += b"t" + struct.pack(">I", len(text)) + text
    return body


def insert(oid: int, values: Sequence[Text], *, start: int = 0) -> bytes:
    return xlog(b"I" + struct.pack(">I", oid) + b"N" + tuple_data(values), start=start)


def update(
    oid: int, values: Sequence[Text], *, key: Sequence[Text] | None = None, full: Sequence[Text] | None = None
) -> bytes:
    """``key``: a 'K' tuple before, ``full``: an 'O' tuple before."""
    old = b"K" + tuple_data(key) if key is not None else b"O" + tuple_data(full) if full is not None else b""
    return xlog(b"U" + struct.pack(">I", oid) + old + b"N" + tuple_data(values))


def delete(oid: int, *, key: Sequence[Text] | None = None, full: Sequence[Text] | None = None) -> bytes:
    old = b"K" + tuple_data(key) if key is not None else b"O" + tuple_data(full or ())
    return xlog(b"D" + struct.pack(">I", oid) + old)


def truncate(oids: Sequence[int], *, cascade: bool = False, restart_identity: bool = False) -> bytes:
    options = cascade | restart_identity << 1
    return xlog(b"T" + struct.pack(f">IB{len(oids)}I", len(oids), options, *oids))
