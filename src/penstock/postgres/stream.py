"""The stream of a slot: pgoutput's frames in, standby status out. Knows libpq and asyncio, not what the frames say.

A PGconn belongs to one thread at a time, so everything that touches it runs in a thread of the stream's own, in turn: draining
for ``DRAIN_SECONDS`` at most, and the status between two drains. The loop only waits for the socket.
(PostgreSQL manual, Streaming Replication Protocol.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg import pq, sql

from penstock.errors import PenstockError, PublicationError
from penstock.lsn import Lsn
from penstock.postgres import wire
from penstock.postgres.connection import failure, keep_bytes, translated
from penstock.postgres.slot import this_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from penstock.postgres.connection import Connection, Connector
    from penstock.postgres.slot import Session

    T = TypeVar("T")

WORK_MEM_SINCE = 13_00_00  # naming logical_decoding_work_mem to a 12 refuses the connection (postgres.md 8)
SENDER_TIMEOUT = "60s"  # ours, whatever the server's: with 0 no keep-alives come (postgres.md 7)
DRAIN_SECONDS = 0.02  # the longest that a drain keeps the status waiting
PAUSE_SECONDS = 0.0005
CLOSE_SECONDS = 1.0
SILENT_SECONDS = 2.0  # after so long the status asks for an answer
LISTENING_SECONDS = 1.0  # between two reads of somebody who listens
_STATUS = struct.Struct(">cQQQqB")
_EPOCH_2000 = 946_684_800


class Stream:
    """One connection that streams from a slot. ``await Stream.open(…)``; closed for good once anything was raised."""

    def __init__(self, connection: Connection, session: Session, slot: str, status_seconds: float) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._slot = slot
        self._status_seconds = status_seconds
        self._thread = ThreadPoolExecutor(1, "stream")
        self._draining: asyncio.Future[bytes] | None = None
        self._ended = False
        self._closed = False
        self._unpublished: PublicationError | None = None
        self.session = session
        connection.add_notice_handler(self._noticed)
        self._asked_at = 0.0  # for a sign of life, which has not come since
        self._heard_at = self._read_at = time.monotonic()  # something; and when reading was last under way
        self._more = True  # the last drain stopped at its limit, not because nothing was left
        self._confirmed = Lsn(0)
        self._news = asyncio.Event()
        self._feedback = asyncio.create_task(self._send_feedback(), name="feedback")

    @classmethod
    async def open(
        cls,
        connector: Connector,
        slot: str,
        publication: str,
        *,
        work_mem: str = "",
        status_seconds: float = 10.0,
        prove: Callable[[Connection], None] = lambda _connection: None,
    ) -> Self:
        """Connect and start streaming where the slot stands. ``work_mem`` is logical_decoding_work_mem of this session, from 13 on.

        ``prove`` looks at the server first, over the same connection; what it raises ends the attempt.
        Raises SlotHeldError, SlotError, PublicationError and what a connection raises.
        """
        opening = _Opening(partial(_start, connector, slot, publication, work_mem, prove))
        try:
            connection, session = await asyncio.to_thread(opening.run)
        except asyncio.CancelledError:
            opening.abandon()
            raise
        return cls(connection, session, slot, status_seconds)

    @property
    def confirmed(self) -> Lsn:
        """What was last given to ``confirm``."""
        return self._confirmed

    @property
    def unanswered_seconds(self) -> float:
        """For how long the server has owed us a sign of life; 0 when it has not been asked, or nobody listens."""
        now = time.monotonic()
        return now - self._asked_at if self._asked_at and now - self._read_at <= LISTENING_SECONDS else 0.0

    async def read(self, max_bytes: int = 4 << 20, quiet_seconds: float = 0.2) -> bytes:
        """Frames: a 4-byte big-endian length and a CopyData payload each; b"" when none was complete within ``quiet_seconds``.

        ``max_bytes`` is passed by the last frame. Raises SourceUnavailableError and others when the stream ends.
        A read that is cancelled loses nothing: the next one has its frames.
        """
        began = time.monotonic()
        if began - self._read_at > LISTENING_SECONDS:  # what came meanwhile was not read
            self._asked_at, self._heard_at = 0.0, began
        deadline = began + quiet_seconds
        while True:
            self._read_at = time.monotonic()
            if self._more or self._draining:
                frames = await self._drain(max_bytes)
                if frames:
                    self._asked_at, self._heard_at = 0.0, time.monotonic()
                    return frames
            left = deadline - time.monotonic()
            if left <= 0:
                return b""
            # TLS may hold bytes that the socket does not show: look there too before calling it quiet.
            self._more = await self._readable(left) or self._pgconn.ssl_in_use

    async def _drain(self, max_bytes: int) -> bytes:
        if self._draining is None:
            self._draining = self._in_thread(lambda: self._drain_now(max_bytes))
        frames = await asyncio.shield(self._draining)
        self._draining = None
        self._more = self._ended or len(frames) >= max_bytes
        return frames

    def _drain_now(self, max_bytes: int) -> bytes:
        """What is there; the stream's end is raised once everything before it has been handed out."""
        frames = b""
        with translated(self._doing):
            if not self._ended:
                frames, self._ended = wire.drain(
                    self._pgconn,
                    max_bytes=max_bytes,
                    framed=True,
                    wait_seconds=DRAIN_SECONDS,
                    pause_seconds=PAUSE_SECONDS,
                )
            if self._ended and not frames:
                raise failure(self._pgconn, wire.next_result(self._pgconn))
        if self._unpublished:
            raise self._unpublished  # instead of these frames: what they skip must not be confirmed
        return frames

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        """From 18 on a walsender whose publication is gone skips every change and only warns: rows would be lost."""
        if notice.source_function == "LoadPublications" or "publication" in (notice.message_primary or ""):
            self._unpublished = PublicationError(
                f"{self._doing}: the publication was dropped, and PostgreSQL skips its changes",
                hint="Create the publication again and copy the tables again: changes between may be missing.",
            )

    @property
    def _doing(self) -> str:
        return f'streaming from slot "{self._slot}"'

    async def _readable(self, seconds: float) -> bool:
        """Whether the socket has something to read, after waiting for it."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        descriptor = self._socket()
        loop.add_reader(descriptor, ready.set)
        try:
            async with asyncio.timeout(seconds):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(descriptor)
        return True

    def _socket(self) -> int:
        with translated(self._doing):
            return self._pgconn.socket

    def confirm(self, lsn: Lsn, *, received: int | None = None) -> None:
        """Let the server forget the WAL before ``lsn``; told within 100 ms. A lower one than before is ignored: 12 would go back.

        The caller sees to it that ``lsn`` is durable, and was received on this connection (postgres.md 3): ValueError if
        ``received`` says that it was not.
        """
        if received is not None and lsn > received:
            raise ValueError(f"{lsn} is to be confirmed, and only {Lsn(received)} was received")
        if lsn > self._confirmed:
            self._confirmed = lsn
            self._news.set()

    async def _send_feedback(self) -> None:
        while True:
            # Not wait_for: in 3.11 it swallows a cancellation that comes together with the news.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._status_seconds):
                    await self._news.wait()
            self._news.clear()
            with contextlib.suppress(PenstockError):  # reading comes upon it too, and raises
                await self._in_thread(self._send_status)

    def _send_status(self) -> None:
        ask = time.monotonic() - self._heard_at >= SILENT_SECONDS
        with translated(self._doing):
            if not self._ended:
                self._pgconn.put_copy_data(_status(self._confirmed, answer=ask))
                wire.flush(self._pgconn, DRAIN_SECONDS)
        if ask and not self._asked_at:
            self._asked_at = time.monotonic()

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def hang_up(self) -> None:
        """End the connection at once, whatever is under way: the server is free of it, and reading raises SourceUnavailableError."""
        with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self._pgconn.socket)) as link:
            link.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Tell the last confirmed position, end the copy, and disconnect; takes a second at most, and raises nothing."""
        if self._closed:
            return
        self._closed = True
        self._feedback.cancel()
        await asyncio.wait({self._feedback})
        with contextlib.suppress(PenstockError):
            await self._in_thread(self._end)
        self._thread.shutdown(wait=True)
        self._connection.close()

    def _end(self) -> None:
        deadline = time.monotonic() + CLOSE_SECONDS
        with translated(self._doing):
            if self._ended or self._pgconn.status != pq.ConnStatus.OK:
                return
            self._pgconn.put_copy_data(_status(self._confirmed))
            self._pgconn.put_copy_end()
            wire.flush(self._pgconn, CLOSE_SECONDS)
            while not self._ended and (left := deadline - time.monotonic()) > 0:
                _, self._ended = wire.drain(self._pgconn, max_bytes=1 << 20, framed=False, wait_seconds=left)
            # The server lets go of the slot before it completes the command: whoever opens next finds it free.
            while self._ended and wire.answered(self._pgconn, deadline - time.monotonic()):
                if self._pgconn.get_result() is None:
                    return


class _Opening:
    """A connection that is being made in a thread, for somebody who may have stopped waiting when it is there."""

    def __init__(self, start: Callable[[], tuple[Connection, Session]]) -> None:
        self._start = start
        self._made: list[Connection] = []
        self._abandoned = False

    def run(self) -> tuple[Connection, Session]:
        connection, session = self._start()
        self._made.append(connection)
        if self._abandoned:
            connection.close()
        return connection, session

    def abandon(self) -> None:
        """Close the connection, be it there already or not yet: one of the two sides sees what the other did first."""
        self._abandoned = True
        for connection in self._made:
            connection.close()


def _start(
    connector: Connector, slot: str, publication: str, work_mem: str, prove: Callable[[Connection], None]
) -> tuple[Connection, Session]:
    connection = connector.replication({"wal_sender_timeout": SENDER_TIMEOUT})
    try:
        prove(connection)
        with translated(f'starting to stream from slot "{slot}"'):
            if work_mem and connection.info.server_version >= WORK_MEM_SINCE:
                connection.execute(sql.SQL("set logical_decoding_work_mem = {}").format(work_mem))
            _require_publication(connection, publication)
            session = this_session(connection)
            keep_bytes(connection)
            pgconn = connection.pgconn
            pgconn.send_query(_start_command(slot, publication).encode())
            if not wire.answered(pgconn, wire.ANSWER_SECONDS):
                raise psycopg.OperationalError(f"no answer within {wire.ANSWER_SECONDS:.0f} s")
            wire.result(pgconn, pq.ExecStatus.COPY_BOTH)
            pgconn.nonblocking = 1
    except BaseException:
        connection.close()
        raise
    return connection, session


def _require_publication(connection: Connection, publication: str) -> None:
    """An error now, rather than when the first change is decoded."""
    query = sql.SQL("select from pg_catalog.pg_publication where pubname = {}").format(publication)
    if connection.execute(query).rowcount != 1:
        raise PublicationError(
            f'the publication "{publication}" does not exist', hint="Create it, or leave source.publication empty."
        )


def _start_command(slot: str, publication: str) -> str:
    """Always from 0/0: the slot knows (postgres.md 4). The replication grammar knows doubled quotes only, not SQL's E''."""
    names = _quoted(_quoted(publication, '"'), "'")
    return f"START_REPLICATION SLOT {_quoted(slot, chr(34))} LOGICAL 0/0 (proto_version '1', publication_names {names})"


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace(mark, mark * 2) + mark


def _status(confirmed: Lsn, *, answer: bool = False) -> bytes:
    """A standby status update: written, flushed and applied are the same to us. It may ask for a keep-alive in ``answer``."""
    clock = int((time.time() - _EPOCH_2000) * 1_000_000)
    return _STATUS.pack(b"r", confirmed, confirmed, confirmed, clock, answer)
