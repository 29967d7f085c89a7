"""One table's way into ClickHouse.

Batches of the stream wait in order; one insert is in flight while the next batch fills. A batch is acknowledged, and its
floor forgotten, only when ClickHouse has it. What concerns this table alone sets it aside; the others go on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from penstock.batch import commit_of, shown_key
from penstock.errors import DestinationAwayError, DestinationUnavailableError, PenstockError, TableError
from penstock.lsn import Lsn
from penstock.observe.status import Rate
from penstock.pipeline import failpoint, retry
from penstock.pipeline.complete import NOWHERE_YET, Doubt, NotCopiedError
from penstock.pipeline.gate import Gate
from penstock.pipeline.lifecycle import State, change

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from penstock.batch import Batch, Unfit
    from penstock.pipeline.checkpoint import PartRecord, Store, TableRecord
    from penstock.plan import Plan
    from penstock.table import Table

log = structlog.get_logger()

FEW_ROWS = 50  # so few rows need not wait for more


class Destination(Protocol):
    """Where batches go."""

    def write(self, batch: Batch, doubt: Doubt, counters: Counter[str]) -> None:
        """Complete the batch's holes and insert it; durable when it returns. May be called from any thread."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every lane of a pipe shares."""

    pipe_name: str
    store: Store
    destination: Destination
    stop: retry.Stop
    inserting: asyncio.Semaphore
    wake: asyncio.Event  # set when a lane has changed: the loop has a look
    visible: Callable[[int, int], None]  # commit time in µs, rows: these are readable now
    position: Callable[[], int]  # what the stream's connection has reached
    reopen: Callable[[], None]  # asks for a new one


@dataclass(frozen=True, slots=True)
class Step:
    """Something to be done to the table between two batches. ``run`` may be repeated. ``always``: also when the table is set aside."""

    run: Callable[[], Awaitable[None]]
    floor: int
    always: bool = False
    size: int = 0
    committed_at: int = 0


class Lane:
    """A table at work: its plan, its record, its waiting batches, its figures.

    ``plan`` is what ClickHouse's table is at the moment; ``ahead`` is what it will be behind all that waits: rows are decoded for that.
    ``since`` is the record's, likewise ahead.
    """

    def __init__(self, plan: Plan, record: TableRecord, around: Surroundings, horizon: int = 0) -> None:
        self.plan = self.ahead = plan
        self.record = record
        self.since = record.since
        self.looked: Table | None = None  # what the catalog said when it was last compared
        self.target = record.target
        self.horizon = horizon  # the catalog that ``ahead`` was made from is not newer
        self.skipping = False  # until the table is copied anew
        self.truncated_by: frozenset[str] = frozenset()  # transactions, since the catalog was last compared
        self.wants = ""  # the name in the destination for which it waits
        self.stuck = False  # nobody is about to give that up
        self.finishing = False  # its copy is at its end
        self.holds = 0  # how often its copy was held: who meant to start it before that must not
        self.blind = False  # its copy waits for another connection
        self.error: Exception | None = None  # what the whole pipe must stop for
        self.trouble = ""  # what is being tried again
        self._refused_at = 0.0  # since when ClickHouse, which is there, takes nothing for this table
        self._counted = dict(record.counters)  # when it was last saved
        self.changes = 0
        self.rate = Rate()
        self.rows_estimated = plan.table.estimated_rows
        self.copy_began = 0.0
        self._around = around
        self._waiting: deque[Batch | Step] = deque()
        self._task: asyncio.Task[None] | None = None
        self._saving = threading.Lock()
        self._counting = threading.Lock()
        kept = 0 if plan.event_log else record.doubt  # there a stored value of its moment is better than one of today
        self._doubt = Doubt(
            kept,
            self._copied_until,
            self._keep_doubt,
            base=lambda: self.record.base,
            exact=lambda: self.plan.at_seam,
        )
        self._flushed_at = 0.0
        again = plan.at_seam and record.state.uncopied  # its snapshot is gone, or never was
        self.gate = Gate(around.position, around.reopen, shut=again)

    @property
    def counters(self) -> Counter[str]:
        """What was not ordinary."""
        return self.record.counters

    def counted(self) -> dict[str, int] | None:
        """The counters, if they have changed since this was asked."""
        now = dict(self.counters)
        if now == self._counted:
            return None
        self._counted = now
        return now

    # Batches

    @property
    def busy(self) -> bool:
        """Whether a batch waits or is in flight."""
        return bool(self._waiting)

    @property
    def stepping(self) -> bool:
        """Whether a step waits or is under way."""
        return any(isinstance(each, Step) for each in self._waiting)

    @property
    def size(self) -> int:
        """Bytes that wait or are in flight."""
        return sum(batch.size for batch in self._waiting)

    def floors(self) -> Iterator[int]:
        """The floors of all that is not yet durable."""
        if self.record.state is not State.FAILED:
            yield from self.gate.floors()
        yield from (batch.floor for batch in self._waiting)

    @property
    def oldest_commit(self) -> int:
        """Commit time of the oldest row that waits or is in flight, microseconds since 1970; 0 for none."""
        return self._waiting[0].committed_at if self._waiting else 0

    def submit(self, batch: Batch | Step) -> None:
        """Queue a batch, or a step, behind those that wait."""
        if self.gate.closed and not isinstance(batch, Step):
            return
        self._waiting.append(batch)
        self._flushed_at = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name=f"lane {self.plan.target}")

    def hold(self, floor: int | None = None) -> None:
        """Write nothing more until the gate is released, and read again what comes from here on (or from ``floor`` on)."""
        self.gate.hold(floor)
        first = list(self._waiting)[:1]  # it may be in flight
        steps = [each for each in list(self._waiting)[1:] if isinstance(each, Step)]
        self._waiting = deque([*first, *steps])
        self._around.wake.set()

    def withhold(self) -> None:
        """Let what has to be written before anything else wait for ClickHouse; what is behind it is read again then."""
        waiting = list(self._waiting)
        kept = self._before_reading_again
        self.gate.withhold(min((each.floor for each in waiting[len(kept) :]), default=None))
        self._waiting = deque(kept)
        log.warning("table is left behind", table=self.record.full_name, why=self.trouble)

    @property
    def least(self) -> int:
        """Bytes that would wait if it were withheld."""
        return sum(each.size for each in self._before_reading_again)

    @property
    def _before_reading_again(self) -> list[Batch | Step]:
        """What is in flight, and all up to the last step: what is read again knows of the step already."""
        waiting = list(self._waiting)
        last = max((index for index, each in enumerate(waiting) if isinstance(each, Step)), default=0)
        return waiting[: last + 1]

    @property
    def refused_seconds(self) -> float:
        """For how long ClickHouse, which is there, has taken nothing for this table."""
        return time.monotonic() - self._refused_at if self._refused_at else 0.0

    async def drained(self) -> None:
        """Wait until nothing waits or is in flight: the barrier before DDL. Raises what the pipe must stop for."""
        if self._task is not None:
            await asyncio.wait({self._task})
        if self.error:
            raise self.error

    async def _work(self) -> None:
        try:
            while self._waiting:
                first = self._waiting[0]
                await (self._do(first) if isinstance(first, Step) else self._write(first))
                if self._waiting:
                    self._waiting.popleft()
                self._around.wake.set()
            self._read_the_rest()
        except retry.Stopped:
            pass
        except Exception as error:
            self.end_pipe(error)
        finally:
            self._around.wake.set()

    def end_pipe(self, error: Exception) -> None:
        """What concerns more than this table."""
        self.error = self.error or error
        self._around.wake.set()

    async def _do(self, step: Step) -> None:
        if self.record.state is State.FAILED and not step.always:
            return
        try:
            await retry.for_ever(step.run, self._around.stop, self.report)
        except TableError as error:
            await self.fail(error)
        else:
            self.untroubled()

    async def _write(self, batch: Batch) -> None:
        if self.record.state is State.FAILED or self.gate.shut:
            return
        try:
            await retry.for_ever(lambda: self._insert(batch), self._around.stop, self.report)
        except NotCopiedError:
            if self.record.state is State.COPYING:
                self.hold(batch.floor)
            else:  # it is by now
                await self._write(batch)
            return
        except TableError as error:
            await self.fail(error)
            return
        self.untroubled()
        self.changes += batch.rows
        self.rate.add(batch.rows, time.monotonic())
        self.count(batch)
        self._around.visible(batch.committed_at, batch.rows)

    def _read_the_rest(self) -> None:
        """Of a table that was left behind; where its copy has shut the gate too, that opens it."""
        if self.gate.withheld and not (self.gate.shut or self.record.state is State.FAILED):
            self.gate.release()

    async def _insert(self, batch: Batch) -> None:
        async with self._around.inserting:
            await asyncio.to_thread(self._around.destination.write, batch, self._doubt, self.counters)
        failpoint.reached("after insert")

    def count(self, batch: Batch) -> None:
        """Add a batch's figures, and say of what did not fit where the first one is."""
        with self._counting:
            if batch.folded:
                self.counters["unchanged values from the batch"] += batch.folded
            if batch.from_old:
                self.counters["unchanged values from the old tuple"] += batch.from_old
            for unfit in batch.unfit:
                if not self.counters[unfit.counter]:
                    self._tell(unfit)
                self.counters[unfit.counter] += unfit.count

    def _tell(self, unfit: Unfit) -> None:
        log.warning(
            "values do not fit",
            table=self.record.full_name,
            column=unfit.column,
            why=unfit.reason,
            first_row=shown_key(self.plan, unfit.key) or None,
            fix=f'types = {{ {unfit.column} = "String" }} keeps them as PostgreSQL prints them',
        )

    def copied(self, batch: Batch) -> None:
        """Add the figures of a batch that was copied. Called from the copy's threads."""
        self.count(batch)
        self.record.rows_copied += batch.rows
        self.record.bytes_copied += batch.text_bytes

    def uncopied(self, part: PartRecord, found: Sequence[Unfit]) -> None:
        """Take figures back: the part is copied again."""
        self.record.rows_copied -= part.rows
        self.record.bytes_copied -= part.bytes
        with self._counting:
            for unfit in found:
                self.counters[unfit.counter] -= unfit.count

    def report(self, error: PenstockError) -> None:
        """Remember what is being tried again, and say it once."""
        if error.message != self.trouble:
            log.warning("trying again", table=self.record.full_name, why=error.message, fix=error.hint)
        self.trouble = error.message
        if isinstance(error, DestinationUnavailableError) and not isinstance(error, DestinationAwayError):
            self._refused_at = self._refused_at or time.monotonic()

    def untroubled(self) -> None:
        """What was tried again has been done."""
        self.trouble, self._refused_at = "", 0.0

    def say(self, note: str) -> None:
        """Remember what is waited for, and say it once."""
        if note != self.trouble:
            log.info("waiting", table=self.record.full_name, why=note)
        self.trouble = note

    # Flushing

    def may_flush(self, rows: int, *, interval: float, gap: float) -> bool:
        """Whether pending rows may go before they are due: the table was quiet, or they are few and the last ones long gone."""
        since = time.monotonic() - self._flushed_at
        return since >= interval or (rows <= FEW_ROWS and since >= gap)

    # State

    async def enter(self, state: State) -> None:
        """Change the table's state, durably."""
        self.record.state = change(self.record.state, state)
        await self.save()

    async def save(self) -> None:
        """Save the table's record."""
        await asyncio.to_thread(self._save_now)

    def _save_now(self) -> None:
        with self._saving:
            self._around.store.save_table(self._around.pipe_name, self.record)

    def has_seen(self, position: Lsn) -> None:
        """What is copied from here on may be of any moment until then: known should the source lose it. Called from the copy's threads."""
        with self._saving:
            if position > self.record.goal:
                self.record.goal = position
                self._around.store.save_table(self._around.pipe_name, self.record)

    async def leave_trace(self, version: int) -> None:
        """Of a TRUNCATE, which leaves no row: what the table shows is of then, should the source lose it (``failover.py``)."""
        self.record.goal = max(self.record.goal, Lsn(commit_of(version) + 1))
        await self.save()

    def discard(self) -> None:
        """Forget what is not in flight."""
        self._waiting = deque(list(self._waiting)[:1])

    def _copied_until(self) -> int:
        """A position behind all that the copy has seen; while it goes on, behind everything."""
        return NOWHERE_YET if self.record.state.uncopied else self.record.goal

    def _keep_doubt(self, until: int) -> None:
        self.record.doubt = Lsn(until)
        self._save_now()

    async def fail(self, error: PenstockError) -> None:
        """Set the table aside. Its reason is saved before any position beyond its rows can be."""
        if self.record.state is State.FAILED:
            return
        self.record.fail(error)
        await self.save()
        log.warning("table set aside", table=self.record.full_name, why=error.message, fix=error.hint)
        self._around.wake.set()

    def reached(self, saved: Lsn) -> bool:
        """Whether the stream has passed the end of this table's copy."""
        return self.record.state is State.CATCHING_UP and saved >= self.record.goal
