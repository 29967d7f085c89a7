"""One round of a run: everything that belongs to one timeline of the source. After a failover there is a new one.

What is in memory may never have happened on the new timeline: so nothing is kept but what both ends have, as after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from penstock.errors import PenstockError, SourceMovedError, TimelineChangedError
from penstock.observe.status import PipeStatus, TableStatus
from penstock.pipeline import retry
from penstock.pipeline.arrivals import Arrivals, Enrolment
from penstock.pipeline.cdc import Cdc
from penstock.pipeline.changes import Changes
from penstock.pipeline.checkpoint import Checkpoint, require_known
from penstock.pipeline.copy import Copies
from penstock.pipeline.ends import DestinationEnd
from penstock.pipeline.failover import Guard
from penstock.pipeline.figures import table_status
from penstock.pipeline.lane import Lane, Surroundings
from penstock.pipeline.lifecycle import State
from penstock.pipeline.lookout import Lookout, Sight
from penstock.pipeline.naming import Naming
from penstock.pipeline.renewal import Means
from penstock.pipeline.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.clickhouse.client import Client
    from penstock.config import Pipe
    from penstock.lsn import Lsn
    from penstock.pipeline.checkpoint import Store
    from penstock.pipeline.ends import SourceEnd
    from penstock.pipeline.prepare import Prepared

log = structlog.get_logger()

INSERTS_EMBEDDED, INSERTS_SERVER = 4, 8  # inserts in flight at a time
CAP_EMBEDDED, CAP_SERVER = 100, 200  # inserts a second


@dataclass(frozen=True, slots=True)
class Telling:
    """Who is told what."""

    voice: Callable[[], Callable[[str], None]]  # for one who may wait: to say what for; empty: for nothing any more
    report: Callable[[PenstockError], None]  # what is being tried again
    lost: Callable[[PenstockError], None]  # likewise: the stream
    opened: Callable[[], None]  # the stream is there
    visible: Callable[[int, int], None]  # commit time in µs, rows: these are readable now


class Round:
    """The parts of a pipe at work. ``await flow()`` ends when the pipe is told to stop, has caught up (``once``), or cannot go on."""

    def __init__(
        self, pipe: Pipe, store: Store, ends: tuple[SourceEnd, Client], prepared: Prepared, telling: Telling
    ) -> None:
        source, client = ends
        self._pipe = pipe
        self._source = source
        self._prepared = prepared
        self._telling = telling
        self._stop = stop = retry.Stop()
        self._wake = asyncio.Event()
        self._refused: dict[str, PenstockError] = dict(prepared.refused)
        self._finish: Lsn | None = None  # of ``once``
        source.connector.guard = Guard(prepared.record, standby=pipe.source.standby)
        destination = self._destination = DestinationEnd(client, pipe.database, source)
        at_a_time = INSERTS_EMBEDDED if client.embedded else INSERTS_SERVER
        around = Surroundings(
            pipe.name,
            store,
            destination,
            stop,
            asyncio.Semaphore(at_a_time),
            self._wake,
            telling.visible,
            lambda: self._cdc.position,
            self._ask_anew,
        )
        epochs = prepared.record.epochs
        horizon = epochs.version(prepared.seen)
        self._lanes = {plan.table.oid: Lane(plan, record, around, horizon) for plan, record in prepared.tables}
        self._checkpoint = Checkpoint(store, pipe.name, prepared.record.position, self._counted)
        settings = pipe.settings
        self._copies = Copies(pipe.name, source, destination, store=store, settings=settings, epochs=epochs, stop=stop)
        naming = Naming(pipe.name, store, self._lanes, source, destination)
        enrolment = Enrolment(pipe, store, prepared.server, self._lanes, around, destination, self._refused, naming)
        self._arrivals = Arrivals(pipe, source, stop, enrolment=enrolment, voice=telling.voice, report=telling.report)
        means = Means(
            pipe,
            source,
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
        self._lookout = Lookout(source.connector, prepared.record, self._lanes, self._cdc, self._heard, telling.voice())
        self._sessions = Sessions(
            prepared.record,
            source,
            self._cdc,
            self._checkpoint,
            self._lookout,
            work_mem=settings.decoding_work_mem,
            standby=pipe.source.standby,
            stop=stop,
            report=telling.lost,
            opened=telling.opened,
        )
        self._changes.attach(self._cdc)
        self._arrivals.attach(self._copies, self._changes, self._checkpoint, self._sessions)
        for record in (record for _, record in prepared.tables if record.state is State.FAILED):
            log.warning("table set aside", table=record.full_name, why=record.reason, fix=record.hint)
        for name, error in prepared.refused:
            log.warning("table refused", table=name, why=error.message, fix=error.hint)

    def stop(self) -> None:
        """End in order: what was read is written, saved and confirmed."""
        self._stop.set()
        self._wake.set()

    def resync(self, names: Sequence[str]) -> None:
        """Copy tables, or without names all of them, again; called in a thread. Raises ConfigError for one that the pipe does not have."""
        if self._stop:
            raise PenstockError("the pipe is just starting or ending", hint="Ask again in a moment.")
        lanes = list(self._lanes.values())
        require_known(self._pipe.name, names, [lane.record.full_name for lane in lanes])
        for lane in lanes:
            if not names or lane.record.full_name in names:
                self._changes.ask(lane)

    async def flow(self, *, once: bool) -> None:
        """Raises TimelineChangedError when it is time for a new round, PenstockError when the pipe cannot go on."""
        gc.freeze()  # the drivers' modules are a million objects that every full collection would look at
        if once:
            self._finish = await retry.for_ever(self._goal, self._stop, self._telling.lost)
        self._cdc.until, self._cdc.leave = self._finished, lambda: self._sessions.is_to_end
        stream = asyncio.create_task(self._sessions.follow(), name="stream")
        look = asyncio.create_task(self._lookout.run(), name="look")
        later = [lane for oid, lane in self._lanes.items() if oid in self._prepared.unpublished]
        for lane in self._lanes.values():
            lane.skipping = lane.record.state is State.WAITING and (bool(lane.record.building) or lane in later)
        others = [lane for lane in self._lanes.values() if lane not in later]
        self._arrivals.begin_all(others, blind=not self._prepared.fresh_slot)
        self._arrivals.publish(later)
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

    def _ask_anew(self) -> None:
        self._sessions.ask_anew()

    async def _heard(self, sight: Sight) -> bool:
        """What the lookout has seen; whether the stream has still to come to something."""
        self._changes.news(sight)
        await self._changes.compare_listing(sight)
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

    async def clear(self) -> None:
        """Return when nothing of this round is under way any more; what was not written yet is forgotten."""
        for lane in self._lanes.values():
            lane.discard()
        for lane in self._lanes.values():
            with contextlib.suppress(PenstockError):  # it was told, or comes again
                await lane.drained()
                await asyncio.to_thread(self._destination.settle, lane.plan.target)

    def _counted(self) -> dict[int, dict[str, int]]:
        return {oid: counters for oid, lane in self._lanes.items() if (counters := lane.counted()) is not None}

    @property
    def status(self) -> PipeStatus:
        """The pipe as it is at the moment, as far as this round knows."""
        written = self._cdc.written or self._checkpoint.saved
        end = max(self._lookout.source_end, self._cdc.received)
        read = self._cdc.reading
        tables = [
            table_status(
                lane, lag_bytes=max(0, end - written) if lane.busy or oid in read else 0, reading=read.get(oid, 0)
            )
            for oid, lane in list(self._lanes.items())
        ]
        tables += [TableStatus(name, "failed", last_error=error.message) for name, error in dict(self._refused).items()]
        return PipeStatus(
            self._pipe.name,
            "running",
            tables=tuple(sorted(tables, key=lambda each: each.full_name)),
            position=written,
            received=end,
            confirmed=self._checkpoint.saved,
            retained_bytes=self._lookout.retained_bytes,
        )
