"""Names in the destination, which go from table to table: who wants one has it as soon as whoever has it gives it up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from penstock.clickhouse.ddl import view_name
from penstock.pipeline import failpoint
from penstock.pipeline.checkpoint import beside
from penstock.pipeline.lifecycle import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.pipeline.checkpoint import Store, TableRecord
    from penstock.pipeline.ends import DestinationEnd, SourceEnd
    from penstock.pipeline.lane import Lane

log = structlog.get_logger()


class Naming:
    """Who has which name."""

    def __init__(
        self, pipe_name: str, store: Store, lanes: dict[int, Lane], source: SourceEnd, destination: DestinationEnd
    ) -> None:
        self._pipe_name = pipe_name
        self._store = store
        self._lanes = lanes
        self._source = source
        self._destination = destination

    def taken(self) -> set[str]:
        """The names that the pipe's tables have, and their views."""
        return {name for lane in self._lanes.values() for name in _with_views(lane.target)}

    def _holder(self, name: str) -> Lane | None:
        """The table that has the name, or will have it."""
        return next((lane for lane in self._lanes.values() if name in (lane.target, lane.ahead.target)), None)

    async def is_promised(self, wanted: str, oid: int) -> bool:
        """Whether another table has the name, or its view's, and is about to give it up; one whose source is gone does so at once."""
        there = await asyncio.to_thread(self._source.names)
        for record in await asyncio.to_thread(self._store.tables, self._pipe_name):
            if record.oid != oid and not _with_views(wanted).isdisjoint(self._names(record)):
                lane = self._lanes.get(record.oid)
                if lane is not None and _moves(lane, there):
                    return True
                if record.oid not in there:
                    await self._put_aside(record)
        return False

    def _names(self, record: TableRecord) -> Iterator[str]:
        yield from _with_views(record.target)
        if lane := self._lanes.get(record.oid):
            yield from _with_views(lane.target)
            yield lane.ahead.target

    async def _put_aside(self, record: TableRecord) -> None:
        """The target of a table that was dropped stays, under another name; its state goes."""
        if lane := self._lanes.get(record.oid):
            await lane.drained()
        aside = beside(record.target, "dropped", record.oid) if record.target_id else ""
        await asyncio.to_thread(self._destination.put_aside, record, aside)
        failpoint.reached("after putting aside")
        await asyncio.to_thread(self._store.forget_table, self._pipe_name, record.oid)
        self._lanes.pop(record.oid, None)
        if aside:
            log.warning("dropped table put aside", table=record.full_name, target=record.target, now=aside)

    async def new_target(self, lane: Lane, wanted: str) -> str:
        """The name that the table is to have from here on: the one it wants, when it can have it.

        Of tables that wait for each other one goes out of the way first. ``lane.wants`` and ``lane.stuck`` say what it waits for.
        """
        stuck = not (lane.record.building or await self.is_promised(wanted, lane.record.oid))
        if stuck and self._holder(wanted) is None and not await asyncio.to_thread(self._destination.exists, wanted):
            lane.wants, lane.stuck = "", False
            return wanted
        if stuck and not lane.stuck:
            name = lane.ahead.table.full_name
            log.warning("table waits for its name", table=name, target=lane.target, why=f"{wanted} is taken")
        lane.wants, lane.stuck = wanted, stuck
        if self._in_circle(lane) and not lane.record.building and not lane.stepping:
            return beside(lane.target, "moving", lane.record.oid)
        return lane.target

    def _in_circle(self, lane: Lane) -> bool:
        each, seen = self._holder(lane.wants), set[int]()
        while each is not None and each.wants and each.record.oid not in seen:
            if each is lane:
                return True
            seen.add(each.record.oid)
            each = self._holder(each.wants)
        return False


def _moves(lane: Lane, there: Mapping[int, str]) -> bool:
    """Whether the stream has still to come to what the catalog says, or a step has still to be done."""
    is_other = there.get(lane.record.oid) != lane.ahead.table.full_name
    return lane.stepping or (is_other and not (lane.stuck or lane.record.state is State.FAILED))


def _with_views(*targets: str) -> set[str]:
    return {*targets, *map(view_name, targets)}
