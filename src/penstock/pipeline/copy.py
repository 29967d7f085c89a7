"""The copy: every waiting table, part by part, while the stream runs; versions sort out who is newer (invariant 3).

A part is one short transaction at the source; when all its rows are durable it is saved as done, so that a copy goes on
part by part after a crash. A history is copied under one exported snapshot instead, exactly at a seam of the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from penstock.decode import CopyDecoder
from penstock.errors import PenstockError, SlotError, SourceChangedError, SourceRefusedError, TableError
from penstock.lsn import Lsn
from penstock.pipeline import failpoint, retry
from penstock.pipeline.checkpoint import PartRecord
from penstock.pipeline.lifecycle import State
from penstock.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator
    from contextlib import AbstractContextManager

    from penstock.batch import Batch, Unfit
    from penstock.config import Settings
    from penstock.pipeline.checkpoint import Store
    from penstock.pipeline.epochs import Epochs
    from penstock.pipeline.lane import Lane
    from penstock.plan import Plan

log = structlog.get_logger()
T = TypeVar("T")

ORDINALS_A_PART = 1 << 32
DRAINED_SECONDS = 0.05
REFUSED_SECONDS = 10.0  # then a part is read again later: its transaction would hold up the source's VACUUM, and its lock an ALTER TABLE


class TableRewrittenError(PenstockError):
    """The table's storage was replaced while it was copied (VACUUM FULL, CLUSTER, a rewriting ALTER, TRUNCATE), or the snapshot that
    it was copied under is gone: its copy starts over.
    """


class _HeldError(Exception):
    """The copy ends here: the table is altered, or set aside."""


class Source(Protocol):
    """What the copy needs of PostgreSQL. Blocking; called from threads."""

    def fence(self, report: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        """Return when every transaction that runs now has ended."""

    def plan_parts(self, plan: Plan, part_rows: int, only: Collection[int] = ()) -> list[str]:
        """The table's parts, or ``only`` those of these partitions, as text that ``read_part`` understands."""

    def read_part(
        self, plan: Plan, part: str, snapshot: str, seen: Callable[[Lsn], None]
    ) -> Generator[bytes, None, None]:
        """Chunks of COPY text, after ``seen`` was told a position behind all that they show.

        Raises TableRewrittenError when the table is no longer the one that was planned.
        """

    def snapshot(
        self, report: Callable[[str], None], stopped: Callable[[], bool]
    ) -> AbstractContextManager[tuple[str, Lsn]]:
        """A snapshot's name and the position of the stream at which it was taken, for as long as the context lasts."""

    def goal(self) -> Lsn:
        """A position behind everything that is visible now; a commit behind it is on its way."""


class Target(Protocol):
    """What the copy needs of ClickHouse. Blocking; called from threads."""

    def insert(self, batch: Batch) -> None:
        """Durable when it returns."""

    def delete(self, plan: Plan, table_id: str, *, from_version: int, below: int) -> None:
        """Delete the rows with ``from_version`` ≤ version < ``below`` of the table with this id; durable when it returns."""


class Copies:
    """Copies the waiting tables of a pipe, ``copy_tables`` at a time."""

    def __init__(  # noqa: PLR0913  (the parts of a pipe meet here, once)
        self,
        pipe_name: str,
        source: Source,
        target: Target,
        *,
        store: Store,
        settings: Settings,
        epochs: Epochs,
        stop: retry.Stop,
    ) -> None:
        self._pipe_name = pipe_name
        self._source = source
        self._target = target
        self._store = store
        self._settings = settings
        self._epochs = epochs
        self._stop = stop
        self._running: dict[int, asyncio.Task[None]] = {}
        self._cut: set[int] = set()  # tables whose copy is at its end: truncated
        self._held: set[int] = set()  # tables whose copy must not go on as it is: altered
        self._emptying: set[int] = set()  # tables of which a TRUNCATE deletes the rows
        self._places = asyncio.Semaphore(settings.copy_tables)
        self._placed: set[int] = set()  # tables whose copy has one
        self._threads = ThreadPoolExecutor(settings.copy_tables * settings.copy_workers + 2, thread_name_prefix="copy")

    async def close(self) -> None:
        """End what runs, and join the threads."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    # Copying

    def start(self, lane: Lane) -> None:
        """Copy a table that is not copied yet, when it is its turn."""
        oid = lane.plan.table.oid
        if oid not in self._running and lane.record.state.uncopied:
            if oid not in self._emptying:
                self._cut.discard(oid)
            self._held.discard(oid)
            task = self._running[oid] = asyncio.create_task(self._one(lane), name=f"copy {lane.plan.target}")
            task.add_done_callback(lambda _: self._running.pop(oid))

    async def hold(self, lane: Lane) -> bool:
        """End the table's copy where it is, until it is started again; whether there was one. What is being read then is read again.

        Who holds it sees to the start.
        """
        oid = lane.plan.table.oid
        lane.holds += 1
        self._held.add(oid)
        task = self._running.get(oid)
        if task and oid not in self._placed:  # whoever has the place may wait for the stream, and that for this table
            task.cancel()
        if task:
            await asyncio.wait({task})
        return task is not None

    async def forget(self, lane: Lane) -> None:
        """The table is to be copied from its beginning."""
        await self._in_thread(self._store.save_parts, self._pipe_name, lane.plan.table.oid, [])

    async def plan(self, plan: Plan, only: Collection[int]) -> None:
        """Of these partitions only. Called in the lane's own step, which is repeated when it fails."""
        try:
            await self._in_thread(self._planned, plan, only)
        except SourceChangedError:  # one is gone by now: all are planned again when the copy begins
            await self._in_thread(self._store.save_parts, self._pipe_name, plan.table.oid, [])

    def _planned(self, plan: Plan, only: Collection[int] = ()) -> list[PartRecord]:
        bodies = self._source.plan_parts(plan, self._settings.copy_part_rows, only)
        parts = [PartRecord(index, body) for index, body in enumerate(bodies)]
        self._store.save_parts(self._pipe_name, plan.table.oid, parts)
        return parts

    async def _one(self, lane: Lane) -> None:
        """Copy one table; what concerns it alone sets it aside."""
        oid = lane.plan.table.oid
        try:
            async with self._places:
                self._placed.add(oid)
                await self._copy(lane)
        except (retry.Stopped, _HeldError):
            return
        except (TableError, SourceRefusedError) as error:
            await lane.fail(error)
        except Exception as error:
            lane.end_pipe(error)
        finally:
            self._placed.discard(oid)

    async def _copy(self, lane: Lane) -> None:
        self._require_going_on(lane)
        lane.copy_began = time.monotonic()
        while not self._is_cut(lane):
            try:
                if lane.plan.at_seam:
                    await self._copy_at_seam(lane)
                else:
                    await self._copy_parts(lane, snapshot="")
                break
            except TableRewrittenError as error:
                if self._is_cut(lane):
                    break
                log.info("copy starts over", table=lane.plan.table.full_name, why=error.message)
                await self.forget(lane)
        lane.record.goal = await self._try(self._source.goal, lane)
        self._require_going_on(lane)
        await lane.enter(State.CATCHING_UP)
        lane.gate.release()  # what had to wait for copied rows
        log.info("table copied", table=lane.plan.table.full_name, rows=lane.record.rows_copied)

    async def _copy_at_seam(self, lane: Lane) -> None:
        """Under one snapshot. What an earlier attempt left is removed: its snapshot is gone.

        Changes wait from before the snapshot until it is known at which position of the stream it was taken.
        """
        lane.hold()
        lane.record.seam = Lsn(0)

        def exported() -> tuple[AbstractContextManager[tuple[str, Lsn]], str, Lsn]:
            context = self._source.snapshot(lane.say, lambda: bool(self._stop) or self._is_held(lane))
            try:
                return (context, *context.__enter__())
            except SlotError:
                self._require_going_on(lane)
                raise

        context, snapshot, seam = await self._try(exported, lane)
        try:
            await self.forget(lane)
            if lane.record.state is State.COPYING:
                while lane.busy:  # not ``drained``: a step of the lane may be waiting for this to end
                    self._require_going_on(lane)
                    await self._stop.sleep(DRAINED_SECONDS)
                below = self._epochs.version(seam)
                await self._try(lambda: self._delete(lane, from_version=0, below=below), lane)
            lane.record.seam = seam
            if lane.record.state is State.WAITING:  # before any row: what there is when it starts over is removed
                await lane.enter(State.COPYING)
            else:
                await lane.save()
            if lane.plan.event_log:  # other rows' old places must all be there to be looked up
                lane.gate.release()
            failpoint.reached("at the seam")
            await self._copy_parts(lane, snapshot=snapshot)
        finally:
            await self._in_thread(context.__exit__, None, None, None)

    async def _copy_parts(self, lane: Lane, *, snapshot: str) -> None:
        parts = await self._parts(lane)
        waiting = iter([part for part in parts if not part.done])
        lane.record.rows_copied = sum(part.rows for part in parts)
        lane.record.bytes_copied = sum(part.bytes for part in parts)

        failed = False

        async def worker() -> None:
            nonlocal failed
            for part in waiting:
                if failed or self._is_cut(lane):
                    return
                self._require_going_on(lane)
                try:
                    await self._try(
                        partial(self._copy_part, lane, part, snapshot), lane, until=partial(self._ends, lane)
                    )
                except BaseException:
                    failed = True
                    raise

        workers = [asyncio.create_task(worker()) for _ in range(min(self._settings.copy_workers, len(parts)))]
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _parts(self, lane: Lane) -> list[PartRecord]:
        """The table's parts: those saved, or planned now. The table is COPYING from here on."""
        parts = await self._in_thread(self._store.parts, self._pipe_name, lane.plan.table.oid)
        if not parts:
            parts = await self._try(partial(self._planned_for, lane), lane, until=partial(self._ends, lane))
        if lane.record.state is State.WAITING:
            await lane.enter(State.COPYING)
        return parts

    def _planned_for(self, lane: Lane) -> list[PartRecord]:
        self._require_going_on(lane)
        return [] if self._is_cut(lane) else self._planned(lane.plan)

    def _require_going_on(self, lane: Lane) -> None:
        if self._is_held(lane):
            raise _HeldError

    def _is_held(self, lane: Lane) -> bool:
        return lane.plan.table.oid in self._held or lane.record.state is State.FAILED

    def _is_cut(self, lane: Lane) -> bool:
        return lane.plan.table.oid in self._cut

    def _ends(self, lane: Lane) -> bool:
        return self._is_cut(lane) or self._is_held(lane)

    def _copy_part(self, lane: Lane, part: PartRecord, snapshot: str) -> None:
        """Read, decode, insert, and save as done. In a thread of its own; repeated as a whole when it fails."""
        self._require_going_on(lane)
        if self._is_cut(lane):  # the stream waits for the end, and what is tried again here may wait for the stream
            return
        settings, plan = self._settings, lane.plan
        first = part.index * ORDINALS_A_PART
        if part.rows and plan.event_log:  # repeated: the rows may come in another order
            self._delete(lane, from_version=first, below=first + ORDINALS_A_PART)
        decoder = CopyDecoder(plan, settings.max_batch_rows, int(settings.max_batch_bytes), first)
        part.rows = part.bytes = 0
        unfit: list[Unfit] = []
        try:
            with contextlib.closing(self._source.read_part(plan, part.body, snapshot, lane.has_seen)) as chunks:
                for chunk in chunks:
                    decoder.receive(chunk)
                    while decoder.full:
                        self._insert(lane, decoder, part, unfit)
                    if self._stop:
                        raise retry.Stopped
                    self._require_going_on(lane)
            decoder.finish()
            self._insert(lane, decoder, part, unfit)
        except BaseException:
            lane.uncopied(part, unfit)
            raise
        part.done = True
        self._store.save_part(self._pipe_name, lane.plan.table.oid, part)
        failpoint.reached("after a copy part")

    def _insert(self, lane: Lane, decoder: CopyDecoder, part: PartRecord, unfit: list[Unfit]) -> None:
        batch = decoder.take()
        if batch is None:
            return
        if lane.record.base:
            batch.stamp(lane.record.base)
        seconds = math.inf if lane.plan.at_seam else REFUSED_SECONDS
        retry.in_thread(lambda: self._target.insert(batch), self._stop, lane.report, seconds=seconds)
        failpoint.reached("within a copy part")
        lane.copied(batch)
        part.rows += batch.rows
        part.bytes += batch.text_bytes
        unfit += batch.unfit

    # What the stream has to say

    async def truncate(self, lane: Lane, version: int) -> None:
        """End the table's copy, then delete every row below ``version``: what comes after it in the stream is complete.

        Unless the changes do not go anywhere at the moment: the snapshot that is being waited for is later than the TRUNCATE, or it comes
        again. It is by now, where the copy has started over meanwhile. A copy that has no place yet has nothing to end: it finds that it is
        cut. Called in the lane's own step, and so is ``hold``.
        """
        if lane.gate.shut or (lane.plan.at_seam and version < self._epochs.version(lane.record.seam)):
            return
        oid = lane.plan.table.oid
        self._cut.add(oid)
        self._emptying.add(oid)
        try:
            await lane.leave_trace(version)
            if oid in self._placed:
                await asyncio.wait({self._running[oid]})
            if lane.plan.shape is Shape.CURRENT:
                await self._try(lambda: self._delete(lane, from_version=0, below=version), lane)
        finally:
            self._emptying.discard(oid)

    def _delete(self, lane: Lane, *, from_version: int, below: int) -> None:
        plan = lane.plan
        self._target.delete(plan, lane.record.id_of(plan.target), from_version=from_version, below=below)

    async def caught_up(self, lane: Lane) -> None:
        """The stream has passed the end of the table's copy: it is streaming from here on. May be repeated."""
        await lane.enter(State.STREAMING)
        log.info("table streaming", table=lane.plan.table.full_name)

    # Threads

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _try(self, function: Callable[[], T], lane: Lane, *, until: Callable[[], bool] = retry.never) -> T:
        result = await retry.for_ever(lambda: self._in_thread(function), self._stop, lane.report, until=until)
        lane.untroubled()
        return result
