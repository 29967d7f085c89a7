"""libpq without blocking: take CopyData payloads off a connection, many at a time; flush; wait for an answer.

libpq stays the one protocol stack: this is the part of it that psycopg has for ordinary cursors only.
"""

from __future__ import annotations

import contextlib
import select
import struct
import time
from typing import TYPE_CHECKING, cast

from penstock.postgres.connection import failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import pq
    from psycopg.pq.pq_ctypes import PGconn

_compiled: Callable[..., tuple[bytes, str]] | None = None
with contextlib.suppress(ImportError):  # it is not there when installed without a C compiler
    from penstock.postgres import _drain

    _compiled = _drain.drain

ANSWER_SECONDS = 60.0
_LENGTH = struct.Struct(">I")


def drain(
    pgconn: pq.abc.PGconn, *, max_bytes: int, framed: bool, wait_seconds: float, pause_seconds: float = 0.0
) -> tuple[bytes, bool]:
    """What came, and whether the copy has ended; blocks for about ``wait_seconds`` at most.

    Returns as soon as ``max_bytes`` are reached. With a pause, also when some of them bring nothing more to what is there already:
    the walsender sends each message by itself, and looking again after a pause saves most system calls. ``framed`` puts a 4-byte
    big-endian length before each payload. After the end, ``result`` says how it went. Raises psycopg.Error when the connection is cut.
    """
    if _compiled is None:
        return drain_in_python(
            pgconn, max_bytes=max_bytes, framed=framed, wait_seconds=wait_seconds, pause_seconds=pause_seconds
        )
    came, state = _compiled(
        cast("PGconn", pgconn).pgconn_ptr,
        max_bytes=max_bytes,
        framed=framed,
        wait_seconds=wait_seconds,
        pause_seconds=pause_seconds,
    )
    if state == "error" and not came:
        raise failure(pgconn, None)
    return came, state == "end"


def drain_in_python(
    pgconn: pq.abc.PGconn, *, max_bytes: int, framed: bool, wait_seconds: float, pause_seconds: float = 0.0
) -> tuple[bytes, bool]:
    """``drain`` without compiled code."""
    pieces: list[bytes | memoryview] = []
    size = before = 0
    deadline = time.monotonic() + wait_seconds
    looked = False
    while size < max_bytes:
        length, payload = pgconn.get_copy_data(1)
        if length < 0:
            return b"".join(pieces), True
        if length:
            pieces += (_LENGTH.pack(length), payload) if framed else (payload,)
            size += length
            continue
        left = deadline - time.monotonic()
        if looked and (left <= 0 or (pause_seconds and size and size == before)):
            break
        if looked and size and pause_seconds:
            before = size
            time.sleep(min(left, pause_seconds))
        elif looked:
            wait(pgconn, select.POLLIN, left)
        looked = True  # the first look is at what is there already: TLS may hold bytes that the socket does not show
        pgconn.consume_input()
    return b"".join(pieces), False


def wait(pgconn: pq.abc.PGconn, events: int, seconds: float) -> bool:
    """Whether the socket became ready; by poll, as select takes no descriptor above 1023."""
    poll = select.poll()
    poll.register(pgconn.socket, events)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def flush(pgconn: pq.abc.PGconn, seconds: float) -> bool:
    """Send what libpq holds back, for at most so long; False when some is left, which the next flush sends."""
    deadline = time.monotonic() + seconds
    while pgconn.flush():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        wait(pgconn, select.POLLIN | select.POLLOUT, left)
        pgconn.consume_input()
    return True


def answered(pgconn: pq.abc.PGconn, seconds: float) -> bool:
    """Whether the whole answer to a query is there, after waiting for it so long at most."""
    deadline = time.monotonic() + seconds
    while pgconn.is_busy():
        if not wait(pgconn, select.POLLIN, deadline - time.monotonic()):
            return False
        pgconn.consume_input()
    return True


def result(pgconn: pq.abc.PGconn, *expected: pq.ExecStatus) -> pq.abc.PGresult:
    """The result of the statement, which is to be one of ``expected``. Raises psycopg.Error."""
    found = next_result(pgconn)
    if found is None or found.status not in expected:
        raise failure(pgconn, found)
    return found


def next_result(pgconn: pq.abc.PGconn) -> pq.abc.PGresult | None:
    """The next result, None when there is none (any more), or none comes within ANSWER_SECONDS.

    libpq's own waiting would hold up every thread of the process: psycopg keeps the interpreter's lock meanwhile, and whoever is
    to bring the answer, as a tunnel does, could not run.
    """
    return pgconn.get_result() if answered(pgconn, ANSWER_SECONDS) else None


def finish(pgconn: pq.abc.PGconn) -> None:
    """Take what is left of a statement's answer, so that the next one can be sent."""
    while next_result(pgconn) is not None:
        pass
