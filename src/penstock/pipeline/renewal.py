"""Copying a table again: into a new one beside the one that is read, which it replaces at once when it is complete.

Until the stream is at what the catalog says, the table's rows are skipped; from there on they go into the new table, and the copy has
those before. So the old table's rows, and the view, are read undisturbed until the exchange.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from penstock.errors import ConfigError, KeyMissingError, TableError
from penstock.pipeline import failpoint, retry
from penstock.pipeline.alteration import Ways, note, with_types_of
from penstock.pipeline.evolve import changed
from penstock.pipeline.lane import Step
from penstock.pipeline.versions import called
from penstock.plan import Shape, compile_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.config import Pipe
    from penstock.lsn import Lsn
    from penstock.pipeline.copy import Copies
    from penstock.pipeline.ends import DestinationEnd, SourceEnd
    from penstock.pipeline.epochs import Epochs
    from penstock.pipeline.lane import Lane
    from penstock.plan import Plan
    from penstock.table import Table
    from penstock.typemap import Capabilities

log = structlog.get_logger()
T = TypeVar("T")


class Decoding(Protocol):
    """The stream's loop, between two items (``cdc.Cdc``)."""

    @property
    def position(self) -> Lsn:
        """What the connection has reached."""

    def take(self, lane: Lane) -> None:
        """Hand what is decoded to the lane."""

    def rebind(self, lane: Lane) -> None:
        """Decode for the lane's plan from here on, where its relations are like it."""

    def unbind(self, lane: Lane) -> None:
        """Skip the table's rows from here on."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the following of definitions works with."""

    pipe: Pipe
    source: SourceEnd
    destination: DestinationEnd
    copies: Copies
    server: Capabilities
    epochs: Epochs
    stop: retry.Stop
    begin: Callable[
        [Lane, bool], None
    ]  # behind a fence, copy the table; True: the stream may not know of all of it yet

    @property
    def ways(self) -> Ways:
        """What the settings say of alterations."""
        return Ways.of(self.pipe)

    async def in_thread(self, lane: Lane, function: Callable[[], T]) -> T:
        """The result of a blocking call, tried again for as long as that helps."""
        return await retry.for_ever(lambda: asyncio.to_thread(function), self.stop, lane.report)

    async def look(self, lane: Lane, xid: int = 0) -> Table | None:
        """The table as the catalog has it once the transaction ``xid`` is visible; None when it is gone."""
        return await self.in_thread(lane, lambda: self.source.look(lane.ahead.table.oid, xid))

    def compiled(self, lane: Lane, new: Table) -> Plan:
        """The plan of another version, by the same settings. Raises TableError where they do not fit it."""
        _require_options(self.pipe, lane, new)
        try:
            return compile_plan(new, self.pipe, self.server)
        except (ConfigError, KeyMissingError) as error:
            raise changed(lane.ahead.table, error.message) from None


def _require_options(pipe: Pipe, lane: Lane, new: Table) -> None:
    """Settings are by name: what a name meant must not be lost with it. Raises TableError."""
    old, tables = lane.ahead.table, pipe.tables
    if new.full_name != old.full_name:
        if not tables.matches(new.full_name):
            raise changed(old, f"it is {new.full_name} now, which [tables] does not include")
        if old.full_name in tables.options and new.full_name not in tables.options:
            raise changed(old, f'it is {new.full_name} now, and [tables.options."{old.full_name}"] names it as it was')
    names = {column.number: column.name for column in new.columns}
    for column in old.columns:
        if column.name in lane.ahead.excluded and names.get(column.number, column.name) != column.name:
            raise changed(old, f'column "{column.name}" of exclude_columns is called "{names[column.number]}" now')


class Renewal:
    """Tables that are copied again."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._stream: Decoding

    def attach(self, stream: Decoding) -> None:
        """Once, before anything else."""
        self._stream = stream

    async def again(self, lane: Lane, why: str) -> Lsn:
        """Begin; the position of the stream at which to ``settle``."""
        log.info("table is copied again", table=lane.ahead.table.full_name, why=why)
        self._stream.take(lane)
        self._stream.unbind(lane)
        lane.skipping, lane.finishing = True, False
        lane.submit(Step(lambda: self._set_back(lane), self._stream.position, always=True))
        return await self._means.in_thread(lane, self._means.source.goal)

    async def _set_back(self, lane: Lane) -> None:
        record, copies = lane.record, self._means.copies
        await copies.hold(lane)
        await copies.forget(lane)
        record.set_back(beside=lane.ahead.shape is not Shape.NULL)
        lane.gate.restart(shut=lane.ahead.at_seam)
        await lane.save()
        failpoint.reached("after set back")

    async def settle(self, lane: Lane) -> bool:
        """The stream is behind what the catalog said: keep rows from here on. False when the table is gone.

        Somebody may have asked for it while it was done: a second time would empty the table, of which rows are copied by then.
        """
        if not lane.skipping:
            return True
        means, position = self._means, self._stream.position
        catalog = await means.look(lane)
        if catalog is None:
            return False
        try:
            plan = means.compiled(lane, called(lane.ahead.table, catalog))
        except TableError as error:
            lane.submit(failing(error, position))
            return True
        if plan.shape is Shape.NULL:
            plan = with_types_of(lane.ahead, plan)
        plan = replace(plan, target=lane.record.building or lane.target)
        lane.ahead, lane.looked, lane.skipping = plan, None, False
        lane.gate.restart(shut=plan.at_seam)
        lane.since = means.epochs.version(position)
        lane.horizon = means.epochs.version(await means.in_thread(lane, means.source.goal))
        self._stream.rebind(lane)
        since, listed = lane.since, listing(plan.table, await means.in_thread(lane, means.source.listed))
        lane.submit(Step(lambda: self._make_fresh(lane, plan, since, listed), position))
        return True

    async def _make_fresh(self, lane: Lane, plan: Plan, since: int, listed: dict[str, str]) -> None:
        record, destination = lane.record, self._means.destination
        own = replace(plan, target=lane.target)
        await asyncio.to_thread(destination.require_free, own, but={record.target_id})
        made = await asyncio.to_thread(destination.make_fresh, plan, beside=bool(record.building))
        if record.building:
            record.building_id = made
        else:
            record.target_id = made
        failpoint.reached("after a fresh table")
        lane.plan = plan
        note(record, plan, lane.target)
        record.since, record.begun, record.listed = since, "", listed
        await lane.save()
        self._means.begin(lane, False)

    def end(self, lane: Lane) -> None:
        """The stream has passed the end of the table's copy."""
        lane.finishing = True
        self._stream.take(lane)
        if lane.record.building:
            lane.ahead = replace(lane.ahead, target=lane.target)
            self._stream.rebind(lane)
        lane.submit(Step(lambda: self._finish(lane), self._stream.position))

    async def _finish(self, lane: Lane) -> None:
        """The new table takes the old one's place."""
        record, means = lane.record, self._means
        if record.building:
            plan = replace(lane.plan, target=lane.target)
            views = means.pipe.destination.views
            fresh, fresh_id = record.building, record.building_id
            # the name was free, or ours, when the copy began
            await asyncio.to_thread(means.destination.require_free, plan, but={record.target_id, fresh_id})
            await asyncio.to_thread(means.destination.put_in_place, plan, fresh=fresh, fresh_id=fresh_id, views=views)
            failpoint.reached("after an exchange")
            lane.plan = plan
            record.target, record.target_id = lane.target, fresh_id
            record.building = record.building_id = ""
        await means.copies.caught_up(lane)


def listing(table: Table, listed: Mapping[str, str]) -> dict[str, str]:
    """Since when the publication has the table's relations that stand in it themselves, else since when its schema."""
    relations = [str(each) for each in (table.oid, *(leaf.oid for leaf in table.leaves)) if str(each) in listed]
    return {each: listed[each] for each in relations or [f"schema {table.schema}"] if each in listed}


def failing(error: TableError, floor: Lsn) -> Step:
    """Sets the table aside, behind what was read before."""

    async def run() -> None:
        raise error

    return Step(run, floor)
