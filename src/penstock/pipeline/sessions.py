"""The sessions of the stream: one connection after the other, each from where the slot is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from penstock.errors import FrameError, PenstockError, SlotError, SlotHeldError, SourceError
from penstock.lsn import Lsn
from penstock.pipeline import retry
from penstock.pipeline.failover import prove
from penstock.postgres.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.pipeline.cdc import Cdc
    from penstock.pipeline.checkpoint import Checkpoint, PipeRecord
    from penstock.pipeline.ends import SourceEnd
    from penstock.pipeline.lookout import Lookout
    from penstock.postgres.slot import Session

log = structlog.get_logger()

STATUS_SECONDS = 4  # how often the server hears of us when there is no news, and is asked for an answer
UNANSWERED_SECONDS = (
    4.0  # so long may the answer take, unless the server says over another connection that it is at work
)
OPINION_SECONDS = 4.0  # so long may that take
HELD_SECONDS = 30  # how long to wait for a slot that somebody holds, when the pipe starts
SAME_FRAME = 5  # so often may the stream be unreadable at one position
POLL_SECONDS = 0.05
LOOK_SECONDS = 1.0


class Sessions:
    """Keeps the stream open."""

    def __init__(  # noqa: PLR0913  (the parts of a pipe meet here, once)
        self,
        record: PipeRecord,
        source: SourceEnd,
        cdc: Cdc,
        checkpoint: Checkpoint,
        lookout: Lookout,
        *,
        work_mem: str,
        standby: bool,
        stop: retry.Stop,
        report: Callable[[PenstockError], None],
        opened: Callable[[], None],
    ) -> None:
        self._record = record
        self._source = source
        self._cdc = cdc
        self._checkpoint = checkpoint
        self._lookout = lookout
        self._work_mem = work_mem
        self._standby = standby
        self._stop = stop
        self._report = report
        self._opened = opened
        self._session: Session | None = None  # the one that is open, or was the last one
        self._began = time.monotonic()
        self._unreadable = 0
        self._unreadable_at = Lsn(0)
        self._reopen = asyncio.Event()
        self._reopened = asyncio.Event()

    @property
    def is_to_end(self) -> bool:
        """Whether the session at hand is to make place for a new one."""
        return self._reopen.is_set()

    def end_pipe(self, error: Exception) -> None:
        """What nobody can go on from."""
        self._cdc.error = error

    def ask_anew(self) -> None:
        """Let the stream go on over a new connection, soon."""
        self._reopened.clear()
        self._reopen.set()

    async def open_anew(self) -> None:
        """Let the stream go on over a new connection; return when it does."""
        self.ask_anew()
        while not self._reopened.is_set():
            await self._stop.sleep(POLL_SECONDS)

    async def follow(self) -> None:
        """Follow the stream until the pipe is to stop, or the stream's end says so."""
        while not self._stop:
            await retry.for_ever(self._sessions, self._stop, self._report)
            if not self._reopen.is_set():
                return
            self._reopen.clear()

    async def _sessions(self) -> None:
        """Follow, on one connection after the other for as long as each gets further; raises what cut one that did not."""
        while True:
            saved = self._checkpoint.saved
            stream = await self._open()
            watch = asyncio.create_task(self._watch(stream), name="watch")
            try:
                await self._cdc.follow(stream)
            except PenstockError as error:
                if not retry.helps(error) or self._checkpoint.saved == saved:
                    raise self._judged(error) from None
                self._report(error)
            else:
                return
            finally:
                watch.cancel()
                await asyncio.wait({watch})
                await stream.close()

    async def _watch(self, stream: Stream) -> None:
        """Let a stream go whose server is silent: the link may be cut without either end's system noticing, as by a proxy that hangs.

        A server that is busy with a large transaction is silent too; it says so over another connection.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if stream.unanswered_seconds < UNANSWERED_SECONDS:
                continue
            if not await self._is_at_work(stream.session) and stream.unanswered_seconds >= UNANSWERED_SECONDS:
                log.warning("stream let go", why=f"the server has not answered for {stream.unanswered_seconds:.0f} s")
                stream.hang_up()
                return

    async def _is_at_work(self, session: Session) -> bool:
        try:
            async with asyncio.timeout(OPINION_SECONDS):
                return await asyncio.to_thread(self._source.is_at_work, session)
        except (TimeoutError, SourceError):
            return False

    async def _open(self) -> Stream:
        record = self._record
        try:
            stream = await Stream.open(
                self._source.connector,
                record.slot,
                record.publication,
                work_mem=self._work_mem,
                status_seconds=STATUS_SECONDS,
                prove=lambda connection: prove(record, self._checkpoint.saved, connection, standby=self._standby),
            )
        except SlotHeldError as error:
            if self._session is not None:
                await asyncio.to_thread(self._end_former, self._session)
            elif time.monotonic() - self._began > HELD_SECONDS:
                raise SlotError(error.message, hint=error.hint) from None
            raise
        self._session = stream.session
        self._lookout.stream = stream
        self._unreadable = 0 if self._checkpoint.saved > self._unreadable_at else self._unreadable
        self._opened()
        self._reopened.set()
        log.info("stream open", slot=record.slot, position=str(self._checkpoint.saved))
        return stream

    def _end_former(self, former: Session) -> None:
        """After a cut that the server has not noticed its sender keeps the slot until ``wal_sender_timeout``: do not wait for that."""
        if self._source.end_former_session(self._record.slot, former):
            log.info("former session ended", slot=self._record.slot, pid=former.pid)

    def _judged(self, error: PenstockError) -> PenstockError:
        """An unreadable stream that stays so at the same position is not for trying again."""
        if isinstance(error, FrameError):
            self._unreadable += 1
            self._unreadable_at = self._checkpoint.saved
            if self._unreadable >= SAME_FRAME:
                return SlotError(
                    f"the stream after {self._checkpoint.saved} cannot be read: {error.message}",
                    hint="Nothing beyond it was confirmed, so nothing is lost. Report it, with this message.",
                )
        return error
