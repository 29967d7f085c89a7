"""How tables get into a pipe that runs: published, fenced, in a stream that knows of them, and only then copied (postgres.md 9, 10)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from penstock.errors import PenstockError, PublicationError
from penstock.pipeline import retry
from penstock.pipeline.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping

    from penstock.config import Pipe
    from penstock.pipeline.changes import Changes
    from penstock.pipeline.checkpoint import Checkpoint
    from penstock.pipeline.copy import Copies
    from penstock.pipeline.ends import SourceEnd
    from penstock.pipeline.lane import Lane

log = structlog.get_logger()
T = TypeVar("T")
POLL_SECONDS = 0.05


class Arrivals:
    """Tables on their way into the stream."""

    def __init__(  # noqa: PLR0913  (what a running pipe lends)
        self,
        pipe: Pipe,
        source: SourceEnd,
        stop: retry.Stop,
        *,
        enroll: Callable[[int, set[int]], Awaitable[Lane | None]],
        say: Callable[[str], None],
        report: Callable[[PenstockError], None],
        reopen: Callable[[], Awaitable[None]],
    ) -> None:
        self._pipe = pipe
        self._source = source
        self._stop = stop
        self._enroll = enroll  # a table of this oid, given all that there are: a lane that waits
        self._seen: set[int] = set()  # tables that have a lane, or were told of
        self._say = say
        self._report = report
        self._reopen = reopen  # the stream, on a new connection
        self._tasks: set[asyncio.Task[None]] = set()
        self._copies: Copies
        self._changes: Changes
        self._checkpoint: Checkpoint

    def attach(self, copies: Copies, changes: Changes, checkpoint: Checkpoint) -> None:
        """Once, before anything else."""
        self._copies, self._changes, self._checkpoint = copies, changes, checkpoint

    @property
    def idle(self) -> bool:
        """Whether no table is on its way."""
        return not self._tasks

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # New tables

    def names(self, every: Mapping[int, str], known: Iterable[int]) -> None:
        """The tables that there are, by oid. Those that match and are new are taken in."""
        new = {oid for oid, name in every.items() if self._pipe.tables.matches(name)} - self._seen - set(known)
        self._seen |= new
        if new and self._pipe.settings.on_new_table == "report":
            for oid in new:
                log.warning("table is new", table=every[oid], why='on_new_table is "report", so it is not copied')
        elif new:
            self._run(self._take_in(new, set(every)))

    async def _take_in(self, oids: set[int], every: set[int]) -> None:
        """Only what can be followed is published: the source would refuse updates of a published table without a key."""
        owned = not self._pipe.source.publication
        try:
            if not owned:
                await self._try(lambda: self._source.publish(oids, self._pipe))
        except PublicationError as error:
            log.warning("new tables are not published", why=error.message, fix=error.hint)
            return
        made = [lane for oid in sorted(oids) if (lane := await self._enroll(oid, every))]
        lanes = [lane for lane in made if lane.record.state is State.WAITING]
        for lane in lanes:
            log.info("table is new", table=lane.record.full_name, target=lane.record.target)
        if owned and lanes:
            await self._try(lambda: self._source.publish({lane.record.oid for lane in lanes}, self._pipe))
        await self._arrive(lanes, blind=True)

    # Copying

    def begin(self, lane: Lane) -> None:
        """Copy a table whose changes are in the stream from now on: when every transaction that runs now has ended."""
        self._run(self._begin([lane]), lane)

    def begin_all(self, lanes: Iterable[Lane], *, blind: bool) -> None:
        """Copy the tables that are not copied. ``blind``: the stream may not know of them yet."""
        waiting = [lane for lane in lanes if lane.record.state in (State.WAITING, State.COPYING)]
        if waiting:
            self._run(
                self._arrive(waiting, blind=blind and any(each.record.state is State.WAITING for each in waiting))
            )

    async def _begin(self, lanes: Iterable[Lane]) -> None:
        await self._fence()
        for lane in lanes:
            self._copies.start(lane)

    async def _arrive(self, lanes: list[Lane], *, blind: bool) -> None:
        await self._fence()
        if blind:
            await self._reopen_behind()
        skipped = [lane for lane in lanes if lane.record.state is State.WAITING and lane.skipping]
        if skipped:
            goal = await self._try(self._source.goal)
            for lane in skipped:
                self._changes.settle(lane, goal)
        await self._begin(lane for lane in lanes if lane not in skipped)

    async def _reopen_behind(self) -> None:
        """A walsender that ran before a table was published may stay blind to it (postgres.md 10)."""
        goal = await self._try(self._source.goal)
        while self._checkpoint.saved < goal:
            await self._stop.sleep(POLL_SECONDS)
        await self._reopen()
        await self._fence()

    async def _fence(self) -> None:
        await self._try(lambda: self._source.fence(self._say, lambda: bool(self._stop)))
        self._say("")

    async def _try(self, function: Callable[[], T]) -> T:
        return await retry.for_ever(lambda: asyncio.to_thread(function), self._stop, self._report)

    def _run(self, work: Coroutine[object, object, None], lane: Lane | None = None) -> None:
        async def guarded() -> None:
            try:
                await work
            except retry.Stopped:
                pass
            except PenstockError as error:
                if lane is None:
                    self._report(error)
                else:
                    lane.end_pipe(error)

        task = asyncio.create_task(guarded(), name="arrivals")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
