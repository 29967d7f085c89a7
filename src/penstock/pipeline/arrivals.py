"""How tables get into a pipe that runs: published, fenced, in a stream that knows of them, and only then copied (postgres.md 9, 10)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog

from penstock.errors import PenstockError, SourceRefusedError, TableError
from penstock.pipeline import retry
from penstock.pipeline.enlist import enlist
from penstock.pipeline.lane import Lane
from penstock.pipeline.lifecycle import State
from penstock.postgres.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping

    from penstock.config import Pipe
    from penstock.pipeline.changes import Changes
    from penstock.pipeline.checkpoint import Checkpoint, Store, TableRecord
    from penstock.pipeline.copy import Copies
    from penstock.pipeline.ends import DestinationEnd, SourceEnd
    from penstock.pipeline.lane import Surroundings
    from penstock.pipeline.lookout import Sight
    from penstock.pipeline.naming import Naming
    from penstock.pipeline.sessions import Sessions
    from penstock.plan import Plan
    from penstock.table import Table
    from penstock.typemap import Capabilities

log = structlog.get_logger()
T = TypeVar("T")
POLL_SECONDS = 0.05
TURN_SECONDS = 2.0  # so long others have their turn at a table's lock


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Gives new tables their lanes."""

    pipe: Pipe
    store: Store
    server: Capabilities
    lanes: dict[int, Lane]
    around: Surroundings
    destination: DestinationEnd
    refused: dict[str, PenstockError]
    naming: Naming

    async def lane_for(self, table: Table) -> Lane | None:
        """A lane that waits."""
        made = await asyncio.to_thread(self._enlist, table)
        if isinstance(made, TableError):
            self._refuse(table.full_name, made)
            return None
        self.refused.pop(table.full_name, None)
        lane = self.lanes[table.oid] = Lane(*made, self.around)
        lane.skipping = lane.record.state is State.WAITING
        if lane.record.state is State.FAILED:
            log.warning("table set aside", table=table.full_name, why=lane.record.reason, fix=lane.record.hint)
        return lane

    async def give_up(self, lane: Lane, error: PenstockError) -> None:
        """A table that cannot get in after all: the next start tries again."""
        del self.lanes[lane.record.oid]
        await asyncio.to_thread(self.store.forget_table, self.pipe.name, lane.record.oid)
        self._refuse(lane.record.full_name, error)

    def _refuse(self, full_name: str, error: PenstockError) -> None:
        self.refused[full_name] = error
        log.warning("table refused", table=full_name, why=error.message, fix=error.hint)

    def _enlist(self, table: Table) -> tuple[Plan, TableRecord] | TableError:
        taken = self.naming.taken()
        return enlist(self.pipe, self.store, self.destination.client, table, self.server, taken=taken)


class Arrivals:
    """Tables on their way into the stream."""

    def __init__(
        self,
        pipe: Pipe,
        source: SourceEnd,
        stop: retry.Stop,
        *,
        enrolment: Enrolment,
        voice: Callable[[], Callable[[str], None]],
        report: Callable[[PenstockError], None],
    ) -> None:
        self._pipe = pipe
        self._source = source
        self._stop = stop
        self._enrolment = enrolment
        self._owned = not pipe.source.publication
        self._told: set[int] = set()  # tables that are not taken in, which was said
        self._taken: set[int] = set()
        self._later: set[int] = set()  # their names are promised to them
        self._say = voice()
        self._waiting, self._looking = (Waiting(voice(), lambda: bool(stop)) for _ in range(2))
        self._report = report
        self._tasks: set[asyncio.Task[None]] = set()
        self._unpublished: list[Lane] = []
        self._publishing = asyncio.Lock()
        self._fencing = asyncio.Lock()
        self._asked = self._fenced = 0  # fences
        self._copies: Copies
        self._changes: Changes
        self._checkpoint: Checkpoint
        self._sessions: Sessions

    def attach(self, copies: Copies, changes: Changes, checkpoint: Checkpoint, sessions: Sessions) -> None:
        """Once, before anything else."""
        self._copies, self._changes, self._checkpoint, self._sessions = copies, changes, checkpoint, sessions

    @property
    def idle(self) -> bool:
        """Whether no table is on its way."""
        return not (self._tasks or self._later)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # New tables

    def names(self, sight: Sight, known: Collection[int]) -> None:
        """Take in tables that match and are new: into a publication of ours, or when they appear in the user's."""
        matching = {oid for oid, name in sight.names.items() if self._pipe.tables.matches(name)} - set(known)
        told = matching - self._told
        if self._pipe.settings.on_new_table == "report":
            for oid in told:
                log.warning("table is new", table=sight.names[oid], why='on_new_table is "report", so it is not copied')
            self._told |= told
            return
        if not self._owned:
            for oid in told - set(sight.published):
                why = f"it is not in the publication {self._pipe.publication}"
                log.warning("table is not published", table=sight.names[oid], why=why)
            self._told |= told - set(sight.published)
            matching &= set(sight.published)
        self._later &= matching
        new = matching - self._taken
        self._taken |= new
        if new:
            self._run(self._take_in(new))

    async def _take_in(self, oids: set[int]) -> None:
        """Only what can be followed is published: the source would refuse updates of a published table without a key."""
        made = [lane for oid in sorted(oids) if (lane := await self._enrol(oid))]
        lanes = [lane for lane in made if lane.record.state is State.WAITING]
        for lane in lanes:
            log.info("table is new", table=lane.record.full_name, target=lane.record.target)
        if self._owned:
            await self._publish(lanes)
        elif lanes:
            await self._arrive(lanes, blind=True)

    def publish(self, lanes: Iterable[Lane]) -> None:
        """Take in tables that could not be published before."""
        self._run(self._publish(lanes))

    async def _publish(self, lanes: Iterable[Lane]) -> None:
        """One at a time, for all who are to be published by then: what somebody keeps locked would hold up the next."""
        self._unpublished += lanes
        async with self._publishing:
            wanted, self._unpublished = self._unpublished, []
            published, locked = await self._published(wanted)
            self._unpublished += locked
            if not self._unpublished:
                self._waiting.report("")
        if locked:
            self._run(self._publish_later())
        if arrived := [lane for lane in published if lane.record.state is State.WAITING]:
            await self._arrive(arrived, blind=True)

    async def _publish_later(self) -> None:
        await self._stop.sleep(TURN_SECONDS)
        await self._publish(())

    async def _published(self, lanes: list[Lane]) -> tuple[list[Lane], list[Lane]]:
        """Those that could be published, where only an owner may; and those that somebody keeps locked."""
        if not lanes:
            return [], []
        oids = {lane.record.oid for lane in lanes}
        try:
            locked = await self._try(lambda: self._source.publish(oids, self._pipe, self._waiting))
        except SourceRefusedError as error:
            if len(lanes) == 1:
                await self._enrolment.give_up(lanes[0], error)
                return [], []
            each = [await self._published([lane]) for lane in lanes]
            return [lane for lanes, _ in each for lane in lanes], [lane for _, lanes in each for lane in lanes]
        return [lane for lane in lanes if lane.record.oid not in locked], [
            lane for lane in lanes if lane.record.oid in locked
        ]

    async def _enrol(self, oid: int) -> Lane | None:
        """None also where its name has still to be given up."""
        table = await self._try(lambda: self._source.look(oid, waiting=self._looking))
        self._looking.report("")
        if table is None:
            return None
        target = self._pipe.tables.target_of(table.schema, table.name)
        naming = self._enrolment.naming
        if await retry.for_ever(lambda: naming.is_promised(target, oid), self._stop, self._report):
            self._later.add(oid)
            self._taken.discard(oid)
            return None
        self._later.discard(oid)
        return await self._enrolment.lane_for(table)

    # Copying

    def begin(self, lane: Lane, blind: bool) -> None:
        """Copy a table whose changes are in the stream, or (``blind``) will be on another connection: behind a fence."""
        self._run(self._arrive([lane], blind=blind))

    def begin_all(self, lanes: Iterable[Lane], *, blind: bool) -> None:
        """Copy the tables that are not copied. ``blind``: the stream may not know of them yet."""
        waiting = [lane for lane in lanes if lane.record.state.uncopied]
        if waiting:
            blind = blind and any(each.record.state is State.WAITING for each in waiting)
            self._run(self._arrive(waiting, blind=blind))

    def _arrive(self, lanes: Iterable[Lane], *, blind: bool) -> Coroutine[object, object, None]:
        """Start their copies; but who holds one from now on starts it instead."""
        holds = {}
        for lane in lanes:
            lane.blind, holds[lane] = blind, lane.holds
        return self._start(holds, blind=blind)

    async def _start(self, holds: Mapping[Lane, int], *, blind: bool) -> None:
        await self._fence()
        if blind:
            await self._reopen_behind()
            for lane in holds:
                self._changes.rebase(lane, self._checkpoint.saved)
        skipped = [lane for lane in holds if lane.record.state is State.WAITING and lane.skipping]
        if skipped:
            goal = await self._try(self._source.goal)
            for lane in skipped:
                self._changes.settle(lane, goal)
        await self._fence()
        for lane, number in holds.items():
            if lane not in skipped and lane.holds == number:
                self._copies.start(lane)

    async def _reopen_behind(self) -> None:
        """A walsender that ran before a table was published may stay blind to it (postgres.md 10)."""
        goal = await self._try(self._source.goal)
        while self._checkpoint.saved < goal:
            await self._stop.sleep(POLL_SECONDS)
        await self._sessions.open_anew()
        await self._fence()

    async def _fence(self) -> None:
        """One at a time, for all who asked before it began: each waits in a thread, and may do so for hours."""
        self._asked += 1
        mine = self._asked
        async with self._fencing:
            if self._fenced >= mine:
                return
            asked = self._asked
            await self._try(lambda: self._source.fence(self._say, lambda: bool(self._stop)))
            self._say("")
            self._fenced = asked

    async def _try(self, function: Callable[[], T]) -> T:
        return await retry.for_ever(lambda: asyncio.to_thread(function), self._stop, self._report)

    def _run(self, work: Coroutine[object, object, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except retry.Stopped:
                pass
            except Exception as error:
                self._sessions.end_pipe(error)

        task = asyncio.create_task(guarded(), name="arrivals")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
