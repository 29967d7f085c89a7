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
from functools import partial
from typing import TYPE_CHECKING

import structlog

from penstock.clickhouse.client import Client
from penstock.errors import (
    DestinationError,
    PenstockError,
    SourceChangedError,
    SourceMovedError,
    TableError,
    TimelineChangedError,
)
from penstock.observe.status import Latencies, PipeStatus, TableStatus
from penstock.observe.words import duration
from penstock.pipeline import retry
from penstock.pipeline.arrivals import Arrivals, Enrolment
from penstock.pipeline.cdc import Cdc
from penstock.pipeline.changes import Changes
from penstock.pipeline.checkpoint import Checkpoint, require_known
from penstock.pipeline.copy import Copies
from penstock.pipeline.ends import DestinationEnd, SourceEnd
from penstock.pipeline.failover import guard
from penstock.pipeline.figures import at_rest, table_status
from penstock.pipeline.lane import Lane, Surroundings
from penstock.pipeline.lifecycle import State
from penstock.pipeline.lookout import Lookout, Sight
from penstock.pipeline.naming import Naming
from penstock.pipeline.prepare import Prepared, Waiting, prepare
from penstock.pipeline.renewal import Means
from penstock.pipeline.sessions import Sessions
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from penstock.config import Pipe
    from penstock.lsn import Lsn
    from penstock.pipeline.checkpoint import Store

log = structlog.get_logger()

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
        self._away_since = 0.0  # there is no stream
        self._connector = Connector(pipe.source, application_name=f"penstock {pipe.name}")
        self._source = SourceEnd(self._connector, scratch, pipe.publication)
        self._client: Client | None = None
        self._lanes: dict[int, Lane] = {}
        self._cdc: Cdc
        self._changes: Changes
        self._arrivals: Arrivals
        self._around: Surroundings
        self._destination: DestinationEnd
        self._refused: dict[str, TableError] = {}
        self._prepared: Prepared
        self._checkpoint: Checkpoint
        self._copies: Copies
        self._lookout: Lookout
        self._finish: Lsn | None = None  # of ``once``
        self._sessions: Sessions
        self._is_open = False
        self._latencies = Latencies()

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

    def resync(self, names: Sequence[str]) -> None:
        """Copy tables, or without names all of them, again, beside those that are read; called in a thread.

        Raises ConfigError for one that the pipe does not have.
        """
        if not self._is_open or self._stop:
            raise PenstockError("the pipe is just starting or ending", hint="Ask again in a moment.")
        lanes = [lane for lane in list(self._lanes.values()) if not names or lane.record.full_name in names]
        require_known(self.pipe.name, names, [lane.record.full_name for lane in list(self._lanes.values())])
        for lane in lanes:
            self._changes.ask(lane)

    # Running

    async def run(self, *, once: bool = False) -> None:
        """Run the pipe. Raises PenstockError when it cannot go on."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="pipe"))
        try:
            await self._rounds(once=once)
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

    async def _rounds(self, *, once: bool) -> None:
        """Flow, from the beginning again whenever the source has failed over: what is in memory may never have happened there."""
        client = self._client = await asyncio.to_thread(Client.open, self.pipe.destination, scratch=self._scratch)
        self._prepared = await asyncio.to_thread(self._prepare, client)
        while True:
            try:
                await self._open(client)
                await self._flow(once=once)
            except TimelineChangedError as error:
                self._lost(error)
                await self._clear()
                self._prepared = await retry.for_ever(
                    lambda: asyncio.to_thread(self._prepare, client), self._stop, self._lost
                )
            else:
                return

    async def _clear(self) -> None:
        """Nothing of the round before is under way any more."""
        self._is_open = False
        for lane in self._lanes.values():
            lane.discard()
        for lane in self._lanes.values():
            with contextlib.suppress(PenstockError):  # it was told, or comes again
                await lane.drained()
                await asyncio.to_thread(self._destination.settle, lane.plan.target)
        if self._state == "stopping":
            raise retry.Stopped
        self._stop, self._state = retry.Stop(), "starting"

    async def _open(self, client: Client) -> None:
        prepared = self._prepared
        self._note = ""
        self._connector.guard = partial(guard, prepared.record, standby=self.pipe.source.standby)
        destination = self._destination = DestinationEnd(client, self.pipe.database, self._source)
        at_a_time = INSERTS_EMBEDDED if client.embedded else INSERTS_SERVER
        around = self._around = Surroundings(
            self.pipe.name,
            self._store,
            destination,
            self._stop,
            asyncio.Semaphore(at_a_time),
            self._wake,
            self._visible,
            lambda: self._cdc.position,
            self._ask_anew,
        )
        self._lanes = {plan.table.oid: Lane(plan, record, around) for plan, record in prepared.tables}
        self._checkpoint = Checkpoint(self._store, self.pipe.name, prepared.record.position, self._counted)
        epochs = prepared.record.epochs
        settings, stop = self.pipe.settings, self._stop
        self._copies = Copies(
            self.pipe.name, self._source, destination, store=self._store, settings=settings, epochs=epochs, stop=stop
        )
        naming = Naming(self.pipe.name, self._store, self._lanes, self._source, destination)
        enrolment = Enrolment(
            self.pipe, self._store, prepared.server, self._lanes, around, destination, self._refused, naming
        )
        self._arrivals = Arrivals(
            self.pipe, self._source, stop, enrolment=enrolment, say=self._say, report=self._report
        )
        means = Means(
            self.pipe,
            self._source,
            destination,
            self._copies,
            prepared.server,
            epochs,
            stop,
            self._arrivals.begin,
        )
        self._changes = Changes(means, self._lanes, naming)
        self._cdc = Cdc(
            self._lanes,
            self._checkpoint,
            self._copies,
            self._changes,
            settings=settings,
            epochs=epochs,
            insert_cap=CAP_EMBEDDED if client.embedded else CAP_SERVER,
            stop=stop,
            wake=self._wake,
        )
        self._lookout = Lookout(self._connector, prepared.record, self._lanes, self._cdc, self._heard)
        self._sessions = Sessions(
            prepared.record,
            self._source,
            self._cdc,
            self._checkpoint,
            self._lookout,
            work_mem=settings.decoding_work_mem,
            standby=self.pipe.source.standby,
            stop=stop,
            report=self._lost,
            opened=self._opened,
        )
        self._changes.attach(self._cdc)
        self._arrivals.attach(self._copies, self._changes, self._checkpoint, self._sessions)
        self._refused.update(prepared.refused)
        self._is_open = True
        for record in (record for _, record in prepared.tables if record.state is State.FAILED):
            log.warning("table set aside", table=record.full_name, why=record.reason, fix=record.hint)
        for name, error in prepared.refused:
            log.warning("table refused", table=name, why=error.message, fix=error.hint)

    def _prepare(self, client: Client) -> Prepared:
        waiting = Waiting(self._say, lambda: bool(self._stop))
        self._connector.guard = lambda _connection: None  # it is to be found out where it leads
        while True:
            with self._connector.connect() as connection, contextlib.suppress(SourceChangedError):
                return prepare(self.pipe, self._store, connection, client, waiting)

    async def _flow(self, *, once: bool) -> None:
        self._state = "running"
        gc.freeze()  # the drivers' modules are a million objects that every full collection would look at
        if once:
            self._finish = await retry.for_ever(self._goal, self._stop, self._lost)
        self._cdc.until = lambda: self._sessions.is_to_end or self._finished()
        stream = asyncio.create_task(self._sessions.follow(), name="stream")
        look = asyncio.create_task(self._lookout.run(), name="look")
        for lane in self._lanes.values():
            lane.skipping = lane.record.state is State.WAITING and bool(lane.record.building)
        self._arrivals.begin_all(self._lanes.values(), blind=not self._prepared.fresh_slot)
        try:
            await asyncio.wait({stream, look}, return_when=asyncio.FIRST_COMPLETED)
            if not stream.done():
                look.result()
            await stream
        finally:
            self._stop.set()
            self._wake.set()
            look.cancel()
            await asyncio.gather(stream, look, return_exceptions=True)
            await self._arrivals.close()
            await self._copies.close()

    async def _goal(self) -> Lsn:
        try:
            return await asyncio.to_thread(self._source.goal)
        except SourceMovedError as error:  # there is no stream yet that would find out
            raise TimelineChangedError(error.message, hint=error.hint) from None

    async def _heard(self, sight: Sight) -> bool:
        """What the lookout has seen; whether the stream has still to come to something."""
        self._changes.news(sight)
        await self._changes.mend()
        self._arrivals.names(sight, self._lanes)
        return not self._changes.idle

    def _finished(self) -> bool:
        """Whether ``once`` is done: every table is settled, and what was committed before the start is durable."""
        if self._finish is None or self._checkpoint.saved < self._finish:
            return False
        if not (self._lookout.has_read and self._changes.idle and self._arrivals.idle):
            return False
        return all(
            lane.record.state in (State.STREAMING, State.FAILED) and not lane.stepping for lane in self._lanes.values()
        )

    # What is being waited for

    def _ask_anew(self) -> None:
        self._sessions.ask_anew()

    def _opened(self) -> None:
        self._trouble = ""
        if self._away_since:
            log.info("source is back", away=duration(time.monotonic() - self._away_since))
        self._away_since = 0.0

    def _lost(self, error: PenstockError) -> None:
        """The stream is cut, or cannot be had."""
        self._away_since = self._away_since or time.monotonic()
        self._report(error)

    def _say(self, note: str) -> None:
        if note != self._note:
            self._note = note
            if note:
                log.info("waiting", why=note)

    def _report(self, error: PenstockError) -> None:
        if error.message != self._trouble:
            self._trouble = error.message
            log.warning("trying again", error=error.message, fix=error.hint)

    def _visible(self, committed_at: int, rows: int) -> None:
        if committed_at and rows:
            self._latencies.add(time.time() * 1000 - committed_at / 1000)

    def _counted(self) -> dict[int, dict[str, int]]:
        return {oid: counters for oid, lane in self._lanes.items() if (counters := lane.counted()) is not None}

    # What people see

    def status(self) -> PipeStatus:
        """The pipe as it is at the moment."""
        if not self._is_open:
            known = at_rest(self._store, self.pipe.name) or PipeStatus(self.pipe.name, "")
            return replace(known, state=self._state, note=self._note, last_error=self._trouble)
        written = self._cdc.written or self._checkpoint.saved
        end = max(self._lookout.source_end, self._cdc.received)
        tables = [
            table_status(lane, lag_bytes=max(0, end - written) if lane.busy else 0)
            for lane in list(self._lanes.values())
        ]
        tables += [TableStatus(name, "failed", last_error=error.message) for name, error in dict(self._refused).items()]
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
            note=self._note or self._away,
            last_error=self._trouble,
        )

    @property
    def _away(self) -> str:
        return f"the source is away for {duration(time.monotonic() - self._away_since)}" if self._away_since else ""


def _close(client: Client) -> None:
    with contextlib.suppress(DestinationError):  # it may be away
        client.end_reading()
    client.close()
