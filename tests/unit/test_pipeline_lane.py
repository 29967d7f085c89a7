"""What becomes of a lane that is left behind: what it keeps, and when the rest is read again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.plans import plan_of

from penstock.batch import Batch, EncodedColumn
from penstock.errors import DestinationUnavailableError
from penstock.pipeline import retry
from penstock.pipeline.checkpoint import TableRecord
from penstock.pipeline.lane import Lane, Step, Surroundings
from penstock.pipeline.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Callable

PLAN = plan_of("id int4")


@dataclass
class Ends:
    """A destination that takes so many batches, and a stream that notes when it is to be opened anew."""

    takes: int = 0
    tried: int = 0
    written: list[int] = field(default_factory=list)
    reopened: list[int] = field(default_factory=list)

    def write(self, batch: Batch, _doubt: object, _counters: object) -> None:
        self.tried += 1
        if len(self.written) >= self.takes:
            raise DestinationUnavailableError("too many parts")
        self.written.append(batch.floor)

    def reopen(self) -> None:
        self.reopened.append(len(self.written))

    def lane(self) -> Lane:
        record = TableRecord(1, "public.t", "t", "", state=State.STREAMING, target_id="1")
        store: Any = None
        stop, inserting, wake = retry.Stop(), asyncio.Semaphore(2), asyncio.Event()
        around = Surroundings("shop", store, self, stop, inserting, wake, _nothing, lambda: 100, self.reopen)
        lane = Lane(PLAN, record, around)
        lane.gate.see()
        return lane


def _nothing(*_: object) -> None:
    pass


def batch(floor: int) -> Batch:
    metadata = [EncodedColumn(None, bytes(16)), EncodedColumn(None, bytes(1))]
    return Batch(PLAN, 1, floor, 0, [EncodedColumn(None, bytes(4)), *metadata])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def left_behind(ends: Ends, *waiting: Batch | Step) -> Lane:
    lane = ends.lane()
    for each in waiting:
        lane.submit(each)
    await until(lambda: ends.tried)
    lane.withhold()
    return lane


def test_the_rest_is_read_again_when_all_that_was_kept_is_written() -> None:
    """Otherwise what is kept would be read again too, and wait twice; and with a step among it could not be dropped again."""

    async def run() -> None:
        ends, stepped = Ends(), []

        async def step() -> None:
            stepped.append(len(ends.written))

        lane = await left_behind(ends, batch(10), batch(20), Step(step, 30), batch(40), batch(50))
        assert list(lane.floors()) == [40, 10, 20, 30]
        ends.takes = 5
        await lane.drained()
        assert (ends.written, stepped, ends.reopened) == ([10, 20], [2], [2])
        assert (lane.gate.withheld, list(lane.floors())) == (True, [40])
        lane.gate.connected()
        assert (lane.gate.closed, list(lane.floors())) == (False, [])

    asyncio.run(run())


def test_a_copy_that_has_the_gate_shut_opens_it_alone() -> None:
    """A log is left behind, and its snapshot is lost: rows from before the next one come with that."""

    async def run() -> None:
        ends = Ends()
        lane = await left_behind(ends, batch(10))
        lane.hold()
        ends.takes = 1
        await lane.drained()
        lane.gate.connected()
        assert (lane.gate.shut, ends.reopened) == (True, [])
        lane.gate.release()
        lane.gate.see()
        assert not lane.gate.closed

    asyncio.run(run())


def test_nothing_is_read_again_of_a_table_that_is_set_aside() -> None:
    async def run() -> None:
        ends = Ends()
        lane = await left_behind(ends, batch(10))
        lane.record.state = State.FAILED
        ends.takes = 1
        await lane.drained()
        assert (list(lane.floors()), ends.reopened) == ([], [])

    asyncio.run(run())
