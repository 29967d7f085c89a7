"""Follows the tables' definitions, at the right place in the stream: alters, copies again beside, sets aside.

Everything is decided in the stream's loop, and done by the table's own lane between the batches before and the batches behind, so that
a table that is being altered holds up no other. What is done may be repeated: only then is it saved, and until then the
stream comes again from before it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from penstock.batch import version_of
from penstock.errors import ConfigError, KeyMissingError, TableError
from penstock.lsn import Lsn
from penstock.pipeline import retry
from penstock.pipeline.evolve import change, changed, fingerprint, refused, unpublished
from penstock.pipeline.lane import Step
from penstock.pipeline.lifecycle import State
from penstock.pipeline.versions import definition, is_like, loosened, same_column, same_columns, to_json, version_at
from penstock.plan import Plan, Shape, compile_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.batch import Relation
    from penstock.config import Pipe
    from penstock.pipeline.copy import Copies
    from penstock.pipeline.ends import DestinationEnd, SourceEnd
    from penstock.pipeline.evolve import Change
    from penstock.pipeline.lane import Lane
    from penstock.plan import PlanColumn
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


class Changes:
    """What happens to the definitions of a pipe's tables."""

    def __init__(  # noqa: PLR0913  (the parts of a pipe meet here, once)
        self,
        pipe: Pipe,
        lanes: Mapping[int, Lane],
        source: SourceEnd,
        destination: DestinationEnd,
        copies: Copies,
        *,
        server: Capabilities,
        epoch: int,
        stop: retry.Stop,
        begin: Callable[[Lane], None],
    ) -> None:
        self._pipe = pipe
        self._lanes = lanes
        self._source = source
        self._destination = destination
        self._copies = copies
        self._server = server
        self._epoch = epoch
        self._stop = stop
        self._begin = begin  # behind a fence, copy the table
        self._stream: Decoding
        self._settling: dict[int, Lsn] = {}  # tables that are to be copied anew, once the stream is there
        self._changed: dict[int, Lsn] = {}  # seen in the catalog before the stream brought it
        self._gone: dict[int, Lsn] = {}
        self._asked: list[Lane] = []

    def attach(self, stream: Decoding) -> None:
        """Once, before anything else."""
        self._stream = stream

    # What the stream brings

    async def announced(self, lane: Lane, relation: Relation, place: tuple[int, int]) -> bool:
        """Bring the lane to the version that the relation's rows have; whether they are to be decoded. Raises TableError."""
        version, xid = place
        if lane.skipping or (version < lane.since and (lane.announced or not is_like(relation, lane.ahead.table))):
            return False
        catalog = await self._look(lane, xid)
        known = lane.ahead.table
        if catalog is None:
            return is_like(relation, known)  # dropped since
        new = version_at(relation, known, catalog)
        if new is None and same_columns(known, catalog) and version >= lane.horizon:
            return True  # it is the publication that leaves something out, and who binds it says so
        if new is None:
            await self.again(lane, "its columns have changed more than once, and it is not certain how")
            return False
        return await self._evolve(lane, new, version, settled=new.storage == catalog.storage)

    async def _look(self, lane: Lane, xid: int = 0) -> Table | None:
        oid = lane.ahead.table.oid
        return await retry.for_ever(lambda: asyncio.to_thread(self._source.look, oid, xid), self._stop, lane.report)

    async def _evolve(self, lane: Lane, new: Table, version: int, *, settled: bool) -> bool:
        """Bring the lane to a version of the table; whether its rows can be decoded from here on. Raises TableError."""
        old = lane.ahead
        if settled:
            lane.looked = definition(new)
        self._require_options(lane, new)
        new, target = await self._named(lane, new)
        if definition(new) == definition(old.table) and target == old.target:
            return True
        plan = self._compiled(lane, new)
        todo = change(old, plan)
        if todo.refused and self._pipe.settings.on_type_change == "fail":
            raise refused(new, todo.refused)
        if todo.again or todo.refused:
            await self.again(lane, todo.again or f'column "{todo.refused}" has another type')
            return False
        plan = replace(plan, target=target)
        texts = await self._defaults(lane, new, todo)
        self._stream.take(lane)
        moved_from = old.target if plan.target != old.target else ""
        lane.ahead, lane.since, lane.announced = plan, version, True
        self._stream.rebind(lane)
        step = _Alteration(plan, todo, texts, version, moved_from)
        lane.submit(Step(lambda: self._alter(lane, step), self._stream.position))
        return True

    def _require_options(self, lane: Lane, new: Table) -> None:
        """Settings are by name: what a name meant must not be lost with it. Raises TableError."""
        old, tables = lane.ahead.table, self._pipe.tables
        if new.full_name != old.full_name:
            if not tables.matches(new.full_name):
                raise changed(old, f"it is {new.full_name} now, which [tables] does not include")
            if old.full_name in tables.options and new.full_name not in tables.options:
                raise changed(
                    old, f'it is {new.full_name} now, and [tables.options."{old.full_name}"] names it as it was'
                )
        names = {column.number: column.name for column in new.columns}
        for column in old.columns:
            if column.name in lane.ahead.excluded and names.get(column.number, column.name) != column.name:
                raise changed(old, f'column "{column.name}" of exclude_columns is called "{names[column.number]}" now')

    def _compiled(self, lane: Lane, new: Table) -> Plan:
        """The plan of another version, by the same settings. Raises TableError where they do not fit it."""
        try:
            plan = compile_plan(new, self._pipe, self._server)
        except (ConfigError, KeyMissingError) as error:
            raise changed(lane.ahead.table, error.message) from None
        return _with_types_of(lane.ahead, plan)

    async def _named(self, lane: Lane, new: Table) -> tuple[Table, str]:
        """The table, under its old name for as long as its new one cannot be had here; and the name of its target.

        Of two tables that change places one goes out of the way first.
        """
        old = lane.ahead.table
        wanted = self._pipe.tables.target_of(new.schema, new.name)
        if new.full_name == old.full_name or wanted == lane.target:
            return new, lane.ahead.target
        holder = next((each for each in self._lanes.values() if wanted in (each.target, each.ahead.target)), None)
        if not lane.record.building:
            if holder is None and not await self._in_thread(lane, lambda: self._destination.exists(wanted)):
                lane.misnamed, lane.target = False, wanted
                return new, wanted
            if holder is not None and holder.misnamed and not lane.stepping:
                lane.target = f"{lane.target}_moving_{old.oid}"
        if not lane.misnamed:
            log.warning("table waits for its name", table=new.full_name, target=lane.target, why=f"{wanted} is taken")
        lane.misnamed, lane.looked = True, None
        return replace(
            new, schema=old.schema, name=old.name
        ), lane.ahead.target if lane.record.building else lane.target

    async def _defaults(self, lane: Lane, new: Table, todo: Change) -> dict[str, str]:
        names = [column.name for _, column in todo.added]
        if not names or todo.reread:
            return {}
        return await self._in_thread(lane, lambda: self._source.defaults(new, names))

    async def _alter(self, lane: Lane, step: _Alteration) -> None:
        """In the lane, between the batches of two versions. May be repeated."""
        held = await self._copies.hold(lane)
        plan, todo, record = step.plan, step.todo, lane.record
        views = self._pipe.destination.views and not record.building
        if step.moved_from:
            moved = await asyncio.to_thread(self._destination.move, step.moved_from, plan, views=views)
            if not moved:
                raise changed(plan.table, f"it was renamed, and {plan.target} is taken in the destination")
        if todo.touches:
            drop = self._pipe.settings.on_drop_column == "drop"
            await asyncio.to_thread(self._destination.alter, plan, todo, step.texts, drop=drop, views=views)
        self._keep(lane, plan, step.version, announced=True)
        copied_again = todo.reread and record.state is not State.FAILED
        if copied_again:
            await self._copies.forget(lane)
            record.base, record.goal = step.version, Lsn(0)
            record.wait()
            lane.finishing = False
        await lane.save()
        if todo.touches or todo.reread:
            log.info("table altered", table=plan.table.full_name, reads_rows_again=copied_again, **_words(todo))
        if copied_again:
            self._begin(lane)
        elif held:
            self._copies.start(lane)

    def _keep(self, lane: Lane, plan: Plan, version: int, *, announced: bool) -> None:
        record = lane.record
        lane.plan = plan
        record.full_name, record.target = plan.table.full_name, lane.target
        record.table, record.fingerprint = to_json(plan.table), fingerprint(plan)
        record.since, record.announced = version, announced

    # Copying beside

    async def again(self, lane: Lane, why: str) -> None:
        """Copy the table into a new one beside the old one, which is read meanwhile."""
        log.info("table is copied again", table=lane.ahead.table.full_name, why=why)
        self._stream.take(lane)
        self._stream.unbind(lane)
        lane.skipping, lane.finishing = True, False
        lane.submit(Step(lambda: self._set_back(lane), self._stream.position, always=True))
        self._settling[lane.ahead.table.oid] = await self._in_thread(lane, self._source.goal)

    async def _set_back(self, lane: Lane) -> None:
        record = lane.record
        await self._copies.hold(lane)
        await self._copies.forget(lane)
        record.set_back(beside=lane.ahead.shape is not Shape.NULL)
        await lane.save()

    async def _settle(self, lane: Lane) -> None:
        """The stream is behind what the catalog said: from here on its rows are kept, and the copy has those before."""
        catalog = await self._look(lane)
        if catalog is None:
            self._gone[lane.ahead.table.oid] = self._stream.position
            return
        try:
            self._require_options(lane, catalog)
            catalog = replace(catalog, schema=lane.ahead.table.schema, name=lane.ahead.table.name)
            plan = self._compiled(lane, catalog)
        except TableError as error:
            lane.submit(_failing(error, self._stream.position))
            return
        plan = replace(plan, target=lane.record.building or lane.target)
        lane.ahead, lane.looked, lane.skipping = plan, None, False
        lane.since, lane.announced = version_of(self._epoch, self._stream.position, 0), False
        lane.horizon = version_of(self._epoch, await self._in_thread(lane, self._source.goal), 0)
        self._stream.rebind(lane)
        since = lane.since
        lane.submit(Step(lambda: self._make_fresh(lane, plan, since), self._stream.position))

    async def _make_fresh(self, lane: Lane, plan: Plan, since: int) -> None:
        lane.record.building_id = await asyncio.to_thread(
            self._destination.make_fresh, plan, beside=bool(lane.record.building)
        )
        self._keep(lane, plan, since, announced=False)
        await lane.save()
        self._begin(lane)

    async def _finish(self, lane: Lane) -> None:
        """The copy is complete: the new table takes the old one's place."""
        record = lane.record
        if record.building:
            plan = replace(lane.plan, target=lane.target)
            await asyncio.to_thread(
                self._destination.put_in_place,
                plan,
                fresh=record.building,
                fresh_id=record.building_id,
                views=self._pipe.destination.views,
            )
            lane.plan = plan
            record.target, record.building, record.building_id = lane.target, "", ""
        await self._copies.caught_up(lane)

    # Between two reads of the stream

    def settle(self, lane: Lane, goal: Lsn) -> None:
        """The table is to be copied anew once the stream is at ``goal``."""
        lane.skipping = True
        self._settling[lane.ahead.table.oid] = goal

    def ask(self, lane: Lane) -> None:
        """Somebody asks for a new copy; called from any thread."""
        self._asked.append(lane)

    def news(self, tables: Mapping[int, Table], missing: set[int], goal: Lsn) -> None:
        """What the catalog says, at a position before ``goal``; and the tables whose changes do not come any more."""
        for oid, lane in self._lanes.items():
            if lane.record.state is State.FAILED or lane.skipping:
                continue
            if oid in missing or oid not in tables:
                self._gone.setdefault(oid, goal)
            elif definition(tables[oid]) not in (lane.looked, definition(lane.ahead.table)):
                self._changed[oid] = goal

    @property
    def idle(self) -> bool:
        """Whether nothing is known that the stream has still to come to."""
        return not (self._settling or self._changed or self._gone or self._asked)

    async def between(self, saved: Lsn) -> None:
        """Do what the stream has come to. To be called when no item is left."""
        while self._asked:
            await self.again(self._asked.pop(), "somebody asked for it")
        for lane in self._due(self._gone):
            lane.submit(_failing(unpublished(lane.ahead.table), self._stream.position))
        for lane in self._due(self._changed):
            await self._caught(lane)
        for lane in self._due(self._settling):
            await self._settle(lane)
        for lane in self._lanes.values():
            if lane.reached(saved) and not (lane.finishing or lane.skipping or lane.stepping):
                self._end_copy(lane)

    def _due(self, waiting: dict[int, Lsn]) -> list[Lane]:
        position = self._stream.position
        due = [oid for oid, goal in waiting.items() if goal <= position]
        for oid in due:
            del waiting[oid]
        return [self._lanes[oid] for oid in due if oid in self._lanes]

    async def _caught(self, lane: Lane) -> None:
        """The catalog has changed, and no row has brought it: all that were written before it are decoded."""
        if lane.skipping or lane.record.state is State.FAILED:
            return
        catalog = await self._look(lane)
        if catalog is None:
            return
        lane.looked = definition(catalog)
        version = version_of(self._epoch, self._stream.position, 0)
        try:
            await self._evolve(lane, loosened(catalog, lane.ahead.table), version, settled=False)
        except TableError as error:
            self._stream.unbind(lane)
            lane.submit(_failing(error, self._stream.position))

    def _end_copy(self, lane: Lane) -> None:
        lane.finishing = True
        self._stream.take(lane)
        if lane.record.building:
            lane.ahead = replace(lane.ahead, target=lane.target)
            self._stream.rebind(lane)
        lane.submit(Step(lambda: self._finish(lane), self._stream.position))

    async def _in_thread(self, lane: Lane, function: Callable[[], T]) -> T:
        return await retry.for_ever(lambda: asyncio.to_thread(function), self._stop, lane.report)


@dataclass(frozen=True, slots=True)
class _Alteration:
    """What a lane has to do when it comes to it."""

    plan: Plan
    todo: Change
    texts: Mapping[str, str]  # defaults of new columns, for the rows there are
    version: int
    moved_from: str  # the target's name before; empty: it stays


def _with_types_of(old: Plan, new: Plan) -> Plan:
    """A column that is as it was keeps its type in ClickHouse: an older server may have given it."""
    before = {old.table.column(each.name).number: each for each in old.columns}

    def kept(column: PlanColumn) -> PlanColumn:
        now = new.table.column(column.name)
        was = before.get(now.number)
        same = was is not None and same_column(old.table.column(was.name), now)
        return replace(was, name=column.name) if was and same else column

    return replace(new, columns=tuple(kept(column) for column in new.columns))


def _failing(error: TableError, floor: Lsn) -> Step:
    """Sets the table aside, behind what was read before."""

    async def run() -> None:
        raise error

    return Step(run, floor)


def _words(todo: Change) -> dict[str, str]:
    """For the log."""
    said = {
        "added": [column.name for _, column in todo.added],
        "dropped": todo.dropped,
        "renamed": [f"{old} to {new}" for old, new in todo.renamed],
        "retyped": [f"{column.name} to {column.clickhouse}" for column in todo.retyped],
    }
    return {word: ", ".join(names) for word, names in said.items() if names}
