"""Follows the tables' definitions, at the right place in the stream: alters, copies again beside, sets aside.

Everything is decided in the stream's loop, and done by the table's own lane between the batches before and the batches behind, so that
a table that is being altered holds up no other. What is done may be repeated: only then is it saved, and until then the
stream comes again from before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from penstock.errors import DestinationUnavailableError, SourceUnavailableError, TableError
from penstock.pipeline import failpoint, retry
from penstock.pipeline.alteration import Alteration, keep, with_types_of
from penstock.pipeline.evolve import change, fits, refused, unpublished
from penstock.pipeline.lane import Step
from penstock.pipeline.lifecycle import State
from penstock.pipeline.renewal import Renewal, failing, listing
from penstock.pipeline.versions import called, definition, is_like, is_part, loosened, same_columns, version_at
from penstock.plan import Shape
from penstock.postgres.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penstock.batch import Relation
    from penstock.lsn import Lsn
    from penstock.pipeline.evolve import Change
    from penstock.pipeline.lane import Lane
    from penstock.pipeline.lookout import Sight
    from penstock.pipeline.naming import Naming
    from penstock.pipeline.renewal import Decoding, Means
    from penstock.plan import Plan
    from penstock.table import Table

log = structlog.get_logger()


def _is_left_behind(lane: Lane) -> bool:
    """Rows from before are to be read again."""
    return lane.gate.withheld


class Changes:
    """What happens to the definitions of a pipe's tables."""

    def __init__(self, means: Means, lanes: Mapping[int, Lane], naming: Naming) -> None:
        self._means = means
        self._naming = naming
        self._renewal = Renewal(means)
        self._lanes = lanes
        self._owned = not means.pipe.source.publication
        self._stream: Decoding
        self._settling: dict[int, Lsn] = {}  # tables that are to be copied anew, once the stream is there
        self._changed: dict[int, Lsn] = {}  # seen in the catalog before the stream brought it
        self._gone: dict[int, Lsn] = {}
        self._unseen: set[int] = set()  # may have another name, which the next look at the catalog tells
        self._asked: list[tuple[Lane, str]] = []

    def attach(self, stream: Decoding) -> None:
        """Once, before anything else."""
        self._stream = stream
        self._renewal.attach(stream)

    # What the stream brings

    async def announced(self, lane: Lane, relation: Relation, place: tuple[int, int]) -> bool:
        """Bring the lane to the version that the relation's rows have; whether they are to be decoded. Raises TableError."""
        version, xid = place
        if lane.skipping:
            return False
        if version < lane.since:  # what changed there may have it announced anew behind it, or not
            return is_like(relation, lane.ahead.table) and fits(relation, lane.ahead)
        catalog = await self._means.look(lane, xid)
        known = lane.ahead.table
        if catalog is None:
            return is_like(relation, known)  # dropped since
        new = version_at(relation, known, catalog)
        if new is None and version >= lane.horizon and same_columns(known, catalog) and is_part(relation, known):
            return True  # it is the publication that leaves something out, and who binds it says so
        if new is None:
            await self.again(lane, "its columns have changed more than once, and it is not certain how")
            return False
        if known.partitioned and same_columns(known, new):
            # its partitions are judged when the stream has told all of them
            new = replace(new, storage=known.storage, joined=known.joined)
        settled = (new.storage, new.joined) == (catalog.storage, catalog.joined)
        return await self._evolve(lane, new, version, settled=settled)

    async def _evolve(self, lane: Lane, new: Table, version: int, *, settled: bool) -> bool:
        """Bring the lane to a version of the table; whether its rows can be decoded from here on. Raises TableError."""
        old = lane.ahead
        if settled:
            lane.looked = definition(new)
        plan = with_types_of(old, self._means.compiled(lane, new))
        if plan.at_seam and lane.record.state.uncopied and definition(called(old.table, new)) != definition(old.table):
            await self.again(lane, "its definition has changed while it was copied")
            return False
        keep_lost = self._means.pipe.settings.on_truncate == "ignore"
        todo = change(old, plan, truncated_by=lane.truncated_by, ignore_lost=keep_lost)
        if todo.refused and self._means.pipe.settings.on_type_change == "fail":
            raise refused(new, todo.refused)
        if todo.again or todo.refused:
            await self.again(lane, todo.again or f'column "{todo.refused}" has another type')
            return False
        defaults = await self._defaults(lane, plan, todo)
        if defaults is None and plan.at_seam and plan.shape is Shape.CURRENT:
            await self.again(lane, "what older rows show for a new column can only be copied")
            return False
        if defaults is None:  # the rows of a history, or of no table at all, stay as they were
            todo, defaults = replace(todo, reread=plan.shape is Shape.CURRENT), {}
        new, target = await self._named(lane, new)
        if definition(new) == definition(old.table) and target == old.target:
            return True
        plan = replace(plan, table=new, target=target)
        self._stream.take(lane)
        lane.ahead, lane.since, lane.truncated_by = plan, version, frozenset()
        self._stream.rebind(lane)
        copy_again = bool(todo.reread or todo.attached)
        step = Alteration(new, version, plan.target, lane.target, defaults, copy_again)
        lane.submit(Step(lambda: self._alter(lane, plan, step, todo), self._stream.position))
        return True

    async def _named(self, lane: Lane, new: Table) -> tuple[Table, str]:
        """The table, under its old name for as long as its new one cannot be had here; and the name of its target."""
        old = lane.ahead.table
        wanted = self._means.pipe.tables.target_of(new.schema, new.name)
        if wanted == lane.target or (new.full_name == old.full_name and not lane.wants):
            lane.wants, lane.stuck = "", False
            return new, lane.ahead.target
        if lane.ahead.at_seam and lane.record.state.uncopied:  # a step would end its copy: it moves when it is copied
            lane.looked = None
            self._unseen.add(old.oid)
            return called(old, new), lane.ahead.target
        lane.target = await retry.for_ever(lambda: self._naming.new_target(lane, wanted), self._means.stop, lane.report)
        if lane.wants:
            lane.looked = None
            new = called(old, new)
        return new, lane.ahead.target if lane.record.building else lane.target

    async def _defaults(self, lane: Lane, plan: Plan, todo: Change) -> dict[str, str] | None:
        """What older rows show for new columns, as expressions; None when that is not known any more, or cannot be said there."""
        means, added = self._means, {number: column.name for number, column in todo.added}
        if not added or todo.reread:
            return {}
        texts = await means.in_thread(lane, lambda: means.source.defaults(plan.table, added))
        return texts and await means.in_thread(lane, lambda: means.destination.constants(plan, texts))

    async def _alter(self, lane: Lane, plan: Plan, step: Alteration, todo: Change) -> None:
        """In the lane, between the batches of two versions. May be repeated."""
        copies, record, old = self._means.copies, lane.record, lane.plan
        held = await copies.hold(lane)
        waits = not held and record.state.uncopied  # whoever meant to start it does not any more
        if todo.touches or old.target != plan.target:
            if record.begun:  # and repeated
                limits = Alteration.from_json(record.begun).limits
            else:
                limits = await asyncio.to_thread(self._means.destination.limits, old.target)
            step = replace(step, table_id=record.id_of(old.target), limits=limits)
            record.begun = step.to_json()
            await lane.save()
            failpoint.reached("before an alteration")
            await asyncio.to_thread(self._means.destination.alter, (old, plan), step, todo, self._means.ways)
            failpoint.reached("after an alteration")
        copy_again = step.copy_again and record.state is not State.FAILED
        if copy_again:
            await self._plan_again(lane, plan, todo)
        lane.plan = plan
        keep(record, plan, step, copy_again=copy_again)
        await lane.save()
        if todo.touches or copy_again:
            log.info("table altered", table=plan.table.full_name, reads_rows_again=copy_again, **_words(todo))
        if copy_again or waits:
            self._means.begin(lane, bool(todo.attached) or (waits and lane.blind))
        elif held:
            copies.start(lane)

    async def _plan_again(self, lane: Lane, plan: Plan, todo: Change) -> None:
        """Of a table that is copied only new partitions are read, of any other every row."""
        copies, lane.finishing = self._means.copies, False
        copied = lane.record.state is State.STREAMING
        if todo.attached:
            await self._publish(lane, plan.table.oid)
        if todo.attached and copied and not todo.reread:
            await copies.plan(plan, todo.attached)
        else:
            await copies.forget(lane)

    async def _publish(self, lane: Lane, oid: int) -> None:
        """The whole of a partitioned table. Raises SourceUnavailableError, having said it, where somebody keeps a partition locked."""
        means = self._means
        waiting = Waiting(lane.say, lambda: bool(means.stop))
        if await asyncio.to_thread(means.source.publish, {oid}, means.pipe, waiting):
            raise SourceUnavailableError(lane.trouble, hint="Penstock tries again.")

    def rebase(self, lane: Lane, saved: Lsn) -> None:
        """Before ``saved`` the stream may lack changes of some partitions: rows that are copied now are at least as new."""
        if lane.record.base:
            lane.record.base = max(lane.record.base, self._means.epochs.version(saved))

    async def again(self, lane: Lane, why: str) -> None:
        """Copy the table into a new one beside the old one, which is read meanwhile."""
        self._settling[lane.ahead.table.oid] = await self._renewal.again(lane, why)

    # Between two reads of the stream

    def settle(self, lane: Lane, goal: Lsn) -> None:
        """The table, of which no row is kept yet, is to be copied anew once the stream is at ``goal``."""
        self._settling.setdefault(lane.ahead.table.oid, goal)

    def ask(self, lane: Lane) -> None:
        """Somebody asks for a new copy; called from any thread."""
        self._asked.append((lane, "somebody asked for it"))

    def news(self, sight: Sight) -> None:
        """What the catalog says; the stream comes to it."""
        for oid, lane in self._lanes.items():
            if lane.record.state is State.FAILED or lane.skipping:
                continue
            if self._means.epochs.version(sight.position) >= lane.horizon:
                self._unseen.discard(oid)
            known, now = (lane.looked, definition(lane.ahead.table)), sight.tables.get(oid)
            is_other = now is not None and definition(now) not in known
            if now is None or (oid in sight.unpublished and not (is_other and now.partitioned and self._owned)):
                self._gone.setdefault(oid, sight.position)
            elif is_other or lane.wants:  # it may want that name no more
                self._changed[oid] = sight.position

    async def compare_listing(self, sight: Sight) -> None:
        """Tables that were taken out of the publication and put back, unseen: what changed meanwhile is missing.

        Another column list or row filter puts them there anew, too; that is followed otherwise.
        """
        for oid, lane in list(self._lanes.items()):
            now, record = sight.tables.get(oid), lane.record
            if now is None or record.state is State.FAILED or lane.skipping:
                continue
            listed = listing(now, sight.listed)
            was_away = any(record.listed.get(each, since) != since for each, since in listed.items())
            if was_away and definition(now) in (lane.looked, definition(lane.ahead.table)):
                self._asked.append((lane, "it was taken out of the publication for a while"))
            elif listed != record.listed:
                record.listed = listed
                await lane.save()

    async def mend(self) -> None:
        """Tables that were set aside because of their tables in the destination, and could go on now."""
        for lane in list(self._lanes.values()):
            if lane.record.state is State.FAILED and lane.record.heals and not (lane.skipping or lane.stepping):
                mended = partial(self._means.destination.is_mended, lane.plan, lane.record)
                with contextlib.suppress(DestinationUnavailableError):  # the next look will tell
                    if await asyncio.to_thread(mended):
                        self._asked.append((lane, "its table in the destination was mended"))

    @property
    def idle(self) -> bool:
        """Whether nothing is known that the stream has still to come to."""
        waits = any(
            lane.wants and not (lane.stuck or lane.record.state is State.FAILED) for lane in self._lanes.values()
        )
        unseen = any(self._lanes[oid].record.state is not State.FAILED for oid in self._unseen & self._lanes.keys())
        return not (waits or unseen or self._settling or self._changed or self._gone or self._asked)

    async def between(self, saved: Lsn) -> None:
        """Do what the stream has come to. To be called when no item is left."""
        while self._asked:
            lane, why = self._asked.pop()
            if not lane.skipping:
                await self.again(lane, why)
        for lane in self._due(self._gone):
            self._stream.take(lane)  # rows from before
            lane.submit(failing(unpublished(lane.ahead.table), self._stream.position))
        for lane in self._due(self._changed):
            await self._caught(lane)
        for lane in self._due(self._settling, unless=lambda lane: lane.stepping):  # it is still to be set back
            self._unseen.add(lane.ahead.table.oid)  # it goes on under the name that it had
            if not await self._renewal.settle(lane):
                self._gone[lane.ahead.table.oid] = self._stream.position
        for lane in self._lanes.values():
            if lane.reached(saved) and not (lane.finishing or lane.skipping or lane.stepping):
                self._renewal.end(lane)

    def _due(self, waiting: dict[int, Lsn], *, unless: Callable[[Lane], bool] = _is_left_behind) -> list[Lane]:
        position, lanes = self._stream.position, self._lanes
        due = [oid for oid, goal in waiting.items() if goal <= position and not (oid in lanes and unless(lanes[oid]))]
        for oid in due:
            del waiting[oid]
        return [self._lanes[oid] for oid in due if oid in self._lanes]

    async def _caught(self, lane: Lane) -> None:
        """The catalog has changed, and no row has brought it: all that were written before it are decoded."""
        if lane.skipping or lane.record.state is State.FAILED:
            return
        catalog = await self._means.look(lane)
        if catalog is None:
            return
        lane.looked = definition(catalog)
        version = self._means.epochs.version(self._stream.position)
        try:
            await self._evolve(lane, loosened(catalog, lane.ahead.table), version, settled=False)
        except TableError as error:
            self._stream.unbind(lane)
            self._stream.take(lane)
            lane.submit(failing(error, self._stream.position))


def _words(todo: Change) -> dict[str, str]:
    """For the log."""
    said = {
        "added": [column.name for _, column in todo.added],
        "dropped": todo.dropped,
        "renamed": [f"{old} to {new}" for old, new in todo.renamed],
        "retyped": [f"{column.name} to {column.clickhouse}" for column in todo.retyped],
    }
    return {word: ", ".join(names) for word, names in said.items() if names}
