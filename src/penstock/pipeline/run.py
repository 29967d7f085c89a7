"""One pipe, running: opens both ends, copies, follows, reports, and ends in order.

prepare ──► stream (re-opened whenever it is cut) ──► drain
        └─► fence ──► copy
        └─► look at the source from beside the stream
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from penstock.clickhouse.client import Client
from penstock.errors import DestinationError, FrameError, PenstockError, SlotError, SlotHeldError
from penstock.lsn import Lsn
from penstock.observe.status import Latencies, PipeStatus, TableStatus
from penstock.pipeline import retry
from penstock.pipeline.cdc import Cdc
from penstock.pipeline.checkpoint import Checkpoint
from penstock.pipeline.copy import Copies
from penstock.pipeline.ends import DestinationEnd, SourceEnd
from penstock.pipeline.figures import table_status
from penstock.pipeline.lane import Lane, Surroundings
from penstock.pipeline.lifecycle import State
from penstock.pipeline.lookout import Lookout
from penstock.pipeline.prepare import Prepared, Waiting, prepare, verify
from penstock.postgres.connection import Connector
from penstock.postgres.stream import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import Store
    from penstock.postgres.slot import Session

log = structlog.get_logger()

STATUS_SECONDS = 10  # how often the server hears of us when there is no news
HELD_SECONDS = 30  # how long to wait for a slot that somebody holds, when the pipe starts
SAME_FRAME = 5  # so often may the stream be unreadable at one position
INSERTS_EMBEDDED, INSERTS_SERVER = 4, 8  # inserts in flight at a time
THREADS = 24  # for inserts, saving and looking around
CAP_EMBEDDED, CAP_SERVER = 100, 200  # inserts a second


class Run:
    """One run of a pipe. ``await run()`` ends when the pipe is told to stop, has caught up (``once``), or cannot go on."""

    def __init__(self, pipe: Pipe, store: Store, scratch: Path) -> None:
        self.pipe = pipe
        self._store = store
        self._scratch = scratch
        self._stop = retry.Stop()
        self._wake = asyncio.Event()
        self._state = "starting"
        self._note = ""
        self._trouble = ""
        self._connector = Connector(pipe.source, application_name=f"penstock {pipe.name}")
        self._source = SourceEnd(self._connector, scratch)
        self._client: Client | None = None
        self._lanes: dict[int, Lane] = {}
        self._cdc: Cdc
        self._prepared: Prepared
        self._checkpoint: Checkpoint
        self._copies: Copies
        self._lookout: Lookout
        self._finish: Lsn | None = None  # of ``once``
        self._began = time.monotonic()
        self._is_open = False
        self._session: Session | None = None  # of the stream that is open, or was the last one
        self._unreadable = 0
        self._unreadable_at = Lsn(0)
        self._latencies = Latencies()
        self._reopen = asyncio.Event()
        self._reopened = asyncio.Event()

    def stop(self) -> None:
        """End in order: what was read is written, saved and confirmed."""
        self._state = "stopping"
        self._stop.set()
        self._wake.set()

    def query(self, sql: str, output_format: str) -> bytes:
        """Read the destination; in a thread. Raises DestinationError."""
        if self._client is None:
            raise PenstockError("the pipe is just starting or ending", hint="Ask again in a moment.")
        return self._client.raw(sql, output_format, database=self.pipe.database)

    # Running

    async def run(self, *, once: bool = False) -> None:
        """Run the pipe. Raises PenstockError when it cannot go on."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="pipe"))
        try:
            await self._open()
            await self._flow(once=once)
        except retry.Stopped:
            self._state = "stopped"
        except PenstockError:
            if self._state != "stopping":
                self._state = "failed"
                raise
            self._state = "stopped"
        else:
            self._state = "stopped"
        finally:
            if self._client is not None:
                client, self._client = self._client, None
                await asyncio.to_thread(_close, client)

    async def _open(self) -> None:
        self._client = await asyncio.to_thread(Client.open, self.pipe.destination, scratch=self._scratch)
        prepared = self._prepared = await asyncio.to_thread(self._prepare, self._client)
        self._note = ""
        destination = DestinationEnd(self._client, self.pipe.database, self._source)
        at_a_time = INSERTS_EMBEDDED if self._client.embedded else INSERTS_SERVER
        around = Surroundings(
            self.pipe.name,
            self._store,
            destination,
            self._stop,
            asyncio.Semaphore(at_a_time),
            self._wake,
            self._visible,
            lambda: self._cdc.position,
            self._reopen.set,
        )
        self._lanes = {plan.table.oid: Lane(plan, record, around) for plan, record in prepared.tables}
        self._checkpoint = Checkpoint(self._store, self.pipe.name, prepared.record.position)
        epoch = prepared.record.epoch
        self._copies = Copies(
            self.pipe.name,
            list(self._lanes.values()),
            self._source,
            destination,
            store=self._store,
            settings=self.pipe.settings,
            epoch=epoch,
            stop=self._stop,
        )
        self._cdc = Cdc(
            self._lanes,
            self._checkpoint,
            self._copies,
            settings=self.pipe.settings,
            epoch=epoch,
            insert_cap=CAP_EMBEDDED if self._client.embedded else CAP_SERVER,
            stop=self._stop,
            wake=self._wake,
        )
        self._lookout = Lookout(self._connector, prepared.record, self._lanes.values(), self._cdc)
        self._is_open = True
        for record in (record for _, record in prepared.tables if record.state is State.FAILED):
            log.warning("table set aside", table=record.full_name, why=record.reason, fix=record.hint)
        for name, error in prepared.refused:
            log.warning("table refused", table=name, why=error.message, fix=error.hint)

    def _prepare(self, client: Client) -> Prepared:
        with self._connector.connect() as connection:
            return prepare(self.pipe, self._store, connection, client, Waiting(self._say, lambda: bool(self._stop)))

    async def _flow(self, *, once: bool) -> None:
        self._state = "running"
        gc.freeze()  # the drivers' modules are a million objects that every full collection would look at
        if once:
            self._finish = await asyncio.to_thread(self._source.goal)
        self._cdc.until = lambda: self._reopen.is_set() or self._finished()
        stream = asyncio.create_task(self._follow(), name="stream")
        others = [asyncio.create_task(self._copy(), name="copy"), asyncio.create_task(self._lookout.run(), name="look")]
        try:
            running = {stream, *others}
            while not stream.done():
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stream}:
                    task.result()
            stream.result()
        finally:
            self._stop.set()
            self._wake.set()
            others[1].cancel()
            await asyncio.gather(stream, *others, return_exceptions=True)
            await asyncio.to_thread(self._copies.close)

    def _finished(self) -> bool:
        """Whether ``once`` is done: every table is settled, and what was committed before the start is durable."""
        if self._finish is None or self._checkpoint.saved < self._finish:
            return False
        return all(lane.record.state in (State.STREAMING, State.FAILED) for lane in self._lanes.values())

    # The stream

    async def _follow(self) -> None:
        while not self._stop:
            await retry.for_ever(self._sessions, self._stop, self._report)
            if not self._reopen.is_set():
                return
            self._reopen.clear()

    async def _sessions(self) -> None:
        """Follow, on one connection after the other for as long as each gets further; raises what cut one that did not."""
        while True:
            await asyncio.to_thread(self._verify)
            saved = self._checkpoint.saved
            stream = await self._open_stream()
            try:
                await self._cdc.follow(stream)
            except PenstockError as error:
                if not retry.helps(error) or self._checkpoint.saved == saved:
                    raise self._judged(error) from None
                self._report(error)
            else:
                return
            finally:
                await stream.close()

    def _verify(self) -> None:
        with self._connector.connect() as connection:
            verify(replace(self._prepared.record, position=self._checkpoint.saved), connection)

    async def _open_stream(self) -> Stream:
        settings, record = self.pipe.settings, self._prepared.record
        try:
            stream = await Stream.open(
                self._connector,
                record.slot,
                record.publication,
                work_mem=settings.decoding_work_mem,
                status_seconds=STATUS_SECONDS,
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
        self._trouble = ""
        self._reopened.set()
        log.info("stream open", slot=record.slot, position=str(self._checkpoint.saved))
        return stream

    def _end_former(self, former: Session) -> None:
        """After a cut that the server has not noticed its sender keeps the slot until ``wal_sender_timeout``: do not wait for that."""
        if self._source.end_former_session(self._prepared.record.slot, former):
            log.info("former session ended", slot=self._prepared.record.slot, pid=former.pid)

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

    # The copy

    async def _copy(self) -> None:
        waiting = [lane for lane in self._lanes.values() if lane.record.state in (State.WAITING, State.COPYING)]
        if not waiting:
            return
        try:
            await self._fence()
            if not self._prepared.fresh_slot and any(lane.record.state is State.WAITING for lane in waiting):
                await self._reopen_behind_publication()
            await self._copies.run()
        except retry.Stopped:
            pass

    async def _fence(self) -> None:
        await retry.for_ever(
            lambda: asyncio.to_thread(self._source.fence, self._say, lambda: bool(self._stop)), self._stop, self._report
        )
        self._note = ""

    async def _reopen_behind_publication(self) -> None:
        """A walsender that ran before a table was published may stay blind to it (postgres.md 10)."""
        goal = await retry.for_ever(lambda: asyncio.to_thread(self._source.goal), self._stop, self._report)
        while self._checkpoint.saved < goal:
            await self._stop.sleep(0.05)
        self._reopened.clear()
        self._reopen.set()
        while not self._reopened.is_set():
            await self._stop.sleep(0.05)
        await self._fence()

    # What is being waited for

    def _say(self, note: str) -> None:
        if note != self._note:
            self._note = note
            log.info("waiting", why=note)

    def _report(self, error: PenstockError) -> None:
        if error.message != self._trouble:
            self._trouble = error.message
            log.warning("trying again", error=error.message, fix=error.hint)

    def _visible(self, committed_at: int, rows: int) -> None:
        if committed_at and rows:
            self._latencies.add(time.time() * 1000 - committed_at / 1000)

    # What people see

    def status(self) -> PipeStatus:
        """The pipe as it is at the moment."""
        if not self._is_open:
            return PipeStatus(self.pipe.name, self._state, note=self._note, last_error=self._trouble)
        written = self._cdc.written or self._checkpoint.saved
        end = max(self._lookout.source_end, self._cdc.received)
        tables = [
            table_status(lane, lag_bytes=max(0, end - written) if lane.busy else 0) for lane in self._lanes.values()
        ]
        tables += [TableStatus(name, "failed", last_error=error.message) for name, error in self._prepared.refused]
        return PipeStatus(
            self.pipe.name,
            self._state,
            tables=tuple(sorted(tables, key=lambda each: each.full_name)),
            position=written,
            received=end,
            confirmed=self._checkpoint.saved,
            retained_bytes=self._lookout.retained_bytes,
            latency_p50_ms=self._latencies.p50,
            latency_p99_ms=self._latencies.p99,
            note=self._note,
            last_error=self._trouble,
        )


def _close(client: Client) -> None:
    with contextlib.suppress(DestinationError):  # it may be away
        client.end_reading()
    client.close()
