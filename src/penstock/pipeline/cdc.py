"""The stream's way: frames in, batches out, positions confirmed. The loop is ``follow``.

Everything of a connection (the decoder, the position it has reached) is made anew with the connection: rows that were
decoded but not yet handed to a lane come again. Lanes outlive connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from penstock.batch import Batch, Rejected, Relation, Truncate
from penstock.decode import StreamDecoder
from penstock.errors import SchemaConflictError, TableError
from penstock.lsn import Lsn
from penstock.pipeline.checkpoint import written_position
from penstock.pipeline.evolve import tuple_source
from penstock.pipeline.lane import Step
from penstock.pipeline.lifecycle import State
from penstock.pipeline.renewal import failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from penstock.config import Settings
    from penstock.pipeline.checkpoint import Checkpoint
    from penstock.pipeline.epochs import Epochs
    from penstock.pipeline.lane import Lane
    from penstock.pipeline.retry import Stop

QUIET_SECONDS = 0.003  # so long without a frame means that nothing more is on its way
WAITING_SECONDS = 0.02  # how often to see whether pending rows are due
SHORTEST_GAP_SECONDS = 0.1  # between two inserts of a table that do not wait for the flush interval
LAST_READS_SECONDS = 4.0  # how long to read on when told to stop
LEAVE_SECONDS = 2.0  # how long what was read may take to be written before a connection is left; else it comes again
IDLE_SECONDS = 0.2  # how often to look around when nothing happens
CONFIRM_SECONDS = 0.1  # at most so often is a position saved and confirmed
READ_BYTES = 2 << 20
MOST_WAITING_BYTES = 64 << 20  # encoded batches that wait or are in flight, over all tables
MOST_WITHHELD_BYTES = 128 << 20  # likewise, of tables that are left behind
REFUSED_SECONDS = 10.0  # after which a table makes room for the others


class Frames(Protocol):
    """The stream of one connection (``postgres.stream.Stream``)."""

    async def read(self, max_bytes: int, quiet_seconds: float) -> bytes:
        """Frames, or b"" when none came for ``quiet_seconds``. Raises when the connection is cut."""

    def confirm(self, lsn: Lsn) -> None:
        """Let the server forget the WAL before ``lsn``; sent at once by the connection's own feedback."""


class Copying(Protocol):
    """What the stream has to say to the copy of a table."""

    async def truncate(self, lane: Lane, version: int) -> None:
        """End the table's copy, then delete every row below ``version``; durable when it returns. In the lane's own step."""


class Changing(Protocol):
    """What follows the tables' definitions (``changes.Changes``)."""

    async def announced(self, lane: Lane, relation: Relation, place: tuple[int, int]) -> bool:
        """Bring the lane to the version that the relation's rows have; whether they are to be decoded. Raises TableError."""

    async def again(self, lane: Lane, why: str) -> None:
        """Copy the table again."""

    async def between(self, saved: Lsn) -> None:
        """Do what the stream has come to; called when no item is left."""


class Cdc:
    """Follows the stream for the lanes of a pipe."""

    def __init__(  # noqa: PLR0913  (the parts of a pipe meet here, once)
        self,
        lanes: Mapping[int, Lane],
        checkpoint: Checkpoint,
        copying: Copying,
        changes: Changing,
        *,
        settings: Settings,
        epochs: Epochs,
        insert_cap: int,
        stop: Stop,
        wake: asyncio.Event,
    ) -> None:
        self._lanes = lanes
        self._checkpoint = checkpoint
        self._copying = copying
        self._changes = changes
        self._relations: dict[int, Relation] = {}  # as this connection announced them last
        self._settings = settings
        self._epochs = epochs
        self._insert_cap = insert_cap
        self._stop = stop
        self._wake = wake
        self._decoder = self._new_decoder()
        self._confirming: asyncio.Task[None] | None = None
        self._confirmed = Lsn(0)
        self._confirmed_at = 0.0
        self._first_seen: dict[int, float] = {}
        self._looked_around = False
        self._stopping_at = 0.0
        self.error: Exception | None = None  # what the pipe must stop for
        self.working = False  # something that was read is being dealt with
        self.until: Callable[[], bool] = lambda: False
        self.leave: Callable[[], bool] = lambda: False  # this connection

    # What others may see

    @property
    def position(self) -> Lsn:
        """What this connection has reached."""
        return Lsn(self._decoder.position)

    @property
    def received(self) -> Lsn:
        """The largest position this connection has seen."""
        return Lsn(self._decoder.received)

    @property
    def written(self) -> Lsn:
        """Up to where everything is durable in the destination, as far as this connection knows."""
        return written_position(self._decoder.position, self._floors())

    @property
    def reading(self) -> dict[int, int]:
        """Tables with rows that are decoded and not handed over yet: the commit time of the transaction read last, µs."""
        return dict.fromkeys(self._decoder.pending, self._decoder.committed_at)

    # The loop

    async def follow(self, stream: Frames) -> None:
        """Follow ``stream`` until the pipe is to stop, or ``until`` or ``leave`` says so. Raises when the connection is cut."""
        self._decoder = self._new_decoder()
        self._confirmed = Lsn(0)
        self._first_seen.clear()
        self._relations.clear()
        for lane in self._lanes.values():
            lane.gate.connected()
        try:
            quiet = False
            while not self._over(quiet=quiet):
                self.working = False
                frames = await stream.read(READ_BYTES, self._patience())
                self.working, quiet = True, not frames
                self._decoder.receive(frames)
                while (item := self._decoder.next_item()) is not None:
                    await self._apply(item)
                await self._changes.between(self._checkpoint.saved)
                self._flush(quiet=not frames)
                self._confirm(stream)
                await self._room()
            await self._drain(stream)
        finally:
            self.working = False
            if self._confirming:
                await asyncio.wait({self._confirming})

    def _over(self, *, quiet: bool) -> bool:
        """Told to stop, the pipe reads on until nothing comes any more: what was committed before is drained too."""
        if not self._stop:
            return self.until() or self.leave()
        if not self._stopping_at:
            self._stopping_at = time.monotonic()
            return False  # what was committed before may have come after the read that was quiet
        return quiet or time.monotonic() - self._stopping_at > LAST_READS_SECONDS

    def _new_decoder(self) -> StreamDecoder:
        rows, size = self._settings.max_batch_rows, int(self._settings.max_batch_bytes)
        return StreamDecoder(rows, size, self._epochs.starts)

    async def _apply(self, item: Batch | Relation | Truncate | Rejected) -> None:
        match item:
            case Batch():
                self._submit(item)
            case Relation():
                await self._bind(item)
            case Truncate():
                await self._truncate(item)
            case Rejected():
                if lane := self._lanes.get(item.plan.table.oid):
                    self._set_aside(lane, item.error)

    def _submit(self, batch: Batch) -> None:
        lane = self._lanes.get(batch.plan.table.oid)  # None: it was set aside, and its name went to another table
        if lane is not None and lane.record.state is not State.FAILED:
            lane.submit(batch)

    async def _bind(self, relation: Relation) -> None:
        self._relations[relation.oid] = relation
        lane = self._lane_of(relation.oid)
        if lane is not None:
            lane.gate.see()
        if lane is None or lane.gate.closed or lane.record.state is State.FAILED:
            self._decoder.unbind(relation.oid)
            return
        try:
            if await self._changes.announced(lane, relation, self._decoder.place):
                self._decode(lane, relation)
            else:
                self._decoder.unbind(relation.oid)
        except TableError as error:
            self._set_aside(lane, error)

    def _decode(self, lane: Lane, relation: Relation) -> None:
        plan = lane.ahead
        source = tuple_source(relation, plan)
        if lane.gate.closed:
            self._decoder.unbind(relation.oid)
        else:
            self._decoder.bind(relation.oid, plan, source, plan.table.old_is_full, self._first(lane))

    def _first(self, lane: Lane) -> int:
        """The version at which a table's changes begin: those before it came with its copy, or are durable in an older version of it."""
        return max(lane.since, self._epochs.version(lane.record.seam) if lane.ahead.at_seam else 0)

    def _lane_of(self, oid: int) -> Lane | None:
        return self._lanes.get(oid) or next((lane for lane in self._lanes.values() if oid in relations_of(lane)), None)

    # What the changes of definitions need

    def take(self, lane: Lane) -> None:
        """Hand what is decoded to the lane."""
        self._take(lane.ahead.table.oid)

    def _take(self, oid: int) -> None:
        batch = self._decoder.take(oid)
        if batch is not None:
            self._submit(batch)

    def rebind(self, lane: Lane) -> None:
        """Decode for the lane's plan from here on, where its relations are like it; an older one is announced anew."""
        for oid in relations_of(lane):
            if oid in self._relations:
                try:
                    self._decode(lane, self._relations[oid])
                except SchemaConflictError:
                    self._decoder.unbind(oid)

    def unbind(self, lane: Lane) -> None:
        """Skip the table's rows from here on."""
        for oid in relations_of(lane):
            self._decoder.unbind(oid)

    async def _truncate(self, item: Truncate) -> None:
        if self._settings.on_truncate == "ignore":
            return
        _version, xid = self._decoder.place
        for lane in {lane.record.oid: lane for oid in item.oids if (lane := self._lane_of(oid))}.values():
            if lane.record.state is State.FAILED or lane.skipping or lane.gate.closed:
                continue
            if item.version < self._first(lane):
                continue
            lane.truncated_by |= {str(xid)}
            if not _is_whole(lane, set(item.oids)):
                await self._changes.again(lane, "a partition was truncated")
                continue
            self.take(lane)
            lane.submit(Step(partial(self._copying.truncate, lane, item.version), self.position))

    def _set_aside(self, lane: Lane, error: TableError) -> None:
        self.unbind(lane)
        self.take(lane)
        lane.submit(failing(error, self.position))

    # Flushing

    def _flush(self, *, quiet: bool) -> None:
        """Hand over what is due: at once when the table was quiet, else by age; never while its last insert is in flight."""
        now = time.monotonic()
        pending = self._decoder.pending
        active = len(pending) + sum(lane.busy for lane in self._lanes.values())
        gap = max(SHORTEST_GAP_SECONDS, active / self._insert_cap)
        interval = max(self._settings.flush_interval, gap)
        for oid, (rows, _bytes, _floor) in pending.items():
            lane = self._lanes.get(oid)
            if lane is not None and lane.busy:
                continue
            due = now - self._first_seen.setdefault(oid, now) >= interval
            if lane is None or due or (quiet and lane.may_flush(rows, interval=interval, gap=gap)):
                self._first_seen.pop(oid, None)
                self._take(oid)
        self._looked_around = quiet

    def _patience(self) -> float:
        if self._stop:
            return IDLE_SECONDS
        if not self._decoder.pending:
            return IDLE_SECONDS
        return WAITING_SECONDS if self._looked_around else QUIET_SECONDS

    async def _room(self) -> None:
        """Wait while more is on its way into ClickHouse than memory should hold. A table that is refused there for long makes room."""
        while not self._stop:
            for error in (self.error, *(lane.error for lane in self._lanes.values())):
                if error:
                    raise error
            lanes = self._lanes.values()
            if sum(lane.size for lane in lanes if not lane.gate.withheld) <= MOST_WAITING_BYTES:
                return
            withheld = sum(lane.size for lane in lanes if lane.gate.withheld)
            for lane in lanes:
                if self._is_in_the_way(lane) and withheld + lane.least <= MOST_WITHHELD_BYTES:
                    self._leave_behind(lane)
                    break
            else:
                await self._woken()

    async def _woken(self) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                await self._wake.wait()

    def _is_in_the_way(self, lane: Lane) -> bool:
        """Only what waits here tells when it is accepted: a copy that is refused alone has nothing here to make room with."""
        return lane.busy and lane.refused_seconds > REFUSED_SECONDS and not lane.gate.closed

    def _leave_behind(self, lane: Lane) -> None:
        """The others go on; the slot keeps what this table has not got, and it is read again when ClickHouse takes its rows."""
        self.take(lane)
        self.unbind(lane)
        lane.withhold()

    # Confirming

    def _floors(self) -> Iterator[int]:
        for _rows, _bytes, floor in self._decoder.pending.values():
            yield floor
        for lane in self._lanes.values():
            yield from lane.floors()

    def _confirm(self, stream: Frames) -> None:
        """Start saving and confirming what has been written, unless that is still under way."""
        now = time.monotonic()
        if self._confirming and self._confirming.done():
            self._confirming.result()
            self._confirming = None
        if self._confirming or now - self._confirmed_at < CONFIRM_SECONDS or self.written <= self._confirmed:
            return
        self._confirmed_at, self._confirmed = now, self.written
        self._confirming = asyncio.create_task(self._advance(self._confirmed, stream), name="confirm")

    async def _advance(self, written: Lsn, stream: Frames) -> None:
        await self._checkpoint.advance(written, stream.confirm)

    async def _drain(self, stream: Frames) -> None:
        """The end: what was read is written, saved and confirmed. A table that cannot be written keeps none from another connection."""
        for oid in list(self._decoder.pending):
            self._take(oid)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS if self.leave() and not self._stop else None):
                await asyncio.gather(*(lane.drained() for lane in self._lanes.values()))
        if self._confirming:
            await self._confirming
        await self._advance(self.written, stream)


def relations_of(lane: Lane) -> tuple[int, ...]:
    """Oids of the relations whose rows are the table's."""
    table = lane.ahead.table
    return (table.oid, *(leaf.oid for leaf in table.leaves))


def _is_whole(lane: Lane, oids: set[int]) -> bool:
    """Whether a TRUNCATE of these relations empties the table: its root is named, or every partition."""
    table = lane.ahead.table
    return table.oid in oids or (bool(table.leaves) and oids >= {leaf.oid for leaf in table.leaves})
