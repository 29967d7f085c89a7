"""Looks at the source from beside the stream: how far its WAL is, what the slot retains, and whether it waits for us to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from penstock.errors import SourceError, SourceMovedError, SourceUnavailableError
from penstock.lsn import Lsn
from penstock.pipeline.lifecycle import State
from penstock.postgres import catalog, publication, slot

if TYPE_CHECKING:
    from penstock.pipeline.checkpoint import PipeRecord
    from penstock.pipeline.lane import Lane
    from penstock.postgres.connection import Connection, Connector
    from penstock.postgres.stream import Stream
    from penstock.table import Table

log = structlog.get_logger()

LOOK_SECONDS = 2.0
CATALOG_SHARE = 5  # reading the catalog takes at most one part in so many of the time
CATALOG_SECONDS = 30.0  # and is done so often at least
LOCK_TIMEOUT = "2s"
REFUSALS = 3  # looks in a row without a connection, nor any progress, until the stream is let go


@dataclass(frozen=True, slots=True)
class Sight:
    """What the catalog says."""

    tables: Mapping[int, Table]  # those of the pipe, by oid
    names: Mapping[int, str]  # of all tables, by oid
    unpublished: Collection[int]  # tables of the pipe that are not, or not wholly, published
    published: Collection[int]  # tables
    position: Lsn  # behind all this
    listed: Mapping[str, str] = field(default_factory=dict)  # what stands in the publication itself, and since when


Hearing = Callable[[Sight], Awaitable[bool]]
"""Is told what was seen; whether it waits for the stream to come to that."""


class Progress(Protocol):
    """How far the pipe is (``cdc.Cdc``)."""

    @property
    def position(self) -> Lsn:
        """What the connection has reached."""

    @property
    def received(self) -> Lsn:
        """The largest position the connection has seen."""

    @property
    def written(self) -> Lsn:
        """Up to where everything is durable in the destination."""

    @property
    def working(self) -> bool:
        """Whether something that was read is being dealt with; nothing else is read meanwhile."""


class Lookout:
    """What is known of the source, looked up every ``LOOK_SECONDS``, the tables' definitions less often where there are very many.

    A server that shuts down takes no new connections and waits until its senders have been told that everything is flushed. A pipe
    that cannot write, perhaps because it has to read rows of that very server again, would keep it waiting for ever: it lets go.
    """

    def __init__(
        self,
        connector: Connector,
        record: PipeRecord,
        lanes: Mapping[int, Lane],
        progress: Progress,
        hear: Hearing,
        say: Callable[[str], None],
    ) -> None:
        """``say`` what the stream waits for; empty: nothing any more."""
        self.source_end = Lsn(0)
        self.retained_bytes: int | None = None
        self.stream: Stream | None = None  # the one that is open
        self._connector = connector
        self._record = record
        self._lanes = lanes
        self._progress = progress
        self._hear = hear
        self._say = say
        self._awaited: list[str] = []  # standbys
        self._read_next = 0.0
        self.has_read = False  # the catalog, once at least

    async def run(self) -> None:
        """Look until cancelled."""
        position = written = Lsn(0)
        refusals = 0
        while True:
            still = position == self._progress.position
            behind = self._progress.written < self._progress.received or self._progress.working
            held_up = behind and written == self._progress.written
            position, written = self._progress.position, self._progress.written
            try:
                sight = await asyncio.to_thread(self._ask, dict(self._lanes), nudge=still)
                if sight is not None:
                    if await self._hear(sight):
                        await asyncio.to_thread(self._beat)
                    self.has_read = True
                refusals = 0
            except SourceMovedError as error:
                self._let_go(
                    error.message, error.hint
                )  # the stream finds out whether that is the source after a failover
            except SourceUnavailableError as error:
                refusals = refusals + 1 if held_up else 0
                if refusals >= REFUSALS:
                    refusals = 0
                    self._let_go(f"nothing can be written, and {error.message}", error.hint)
            except SourceError:
                refusals = 0  # whoever needs the source comes upon it too, and says so
            await asyncio.sleep(LOOK_SECONDS)

    def _ask(self, lanes: dict[int, Lane], *, nudge: bool) -> Sight | None:
        """``nudge`` the stream where it has not moved although there was something. The catalog, when it is time."""
        with self._connector.connect() as connection:
            self.source_end = slot.insert_lsn(connection)
            state = slot.slot_state(connection, self._record.slot)
            self.retained_bytes = state.retained_bytes if state else None
            behind = nudge and self.source_end > self._progress.position
            self._tell_awaited(connection if behind else None)
            if behind:
                slot.heartbeat(connection)
            began = time.monotonic()
            if began < self._read_next:
                return None
            sight = self._read(connection, lanes)
            ended = time.monotonic()
            self._read_next = ended + min(CATALOG_SECONDS, (ended - began) * CATALOG_SHARE)
            return sight

    def _read(self, connection: Connection, lanes: dict[int, Lane]) -> Sight:
        connection.execute(f"set lock_timeout = '{LOCK_TIMEOUT}'")  # others' DDL must not keep us from looking
        followed = {oid: lane.ahead.table for oid, lane in lanes.items() if lane.record.state is not State.FAILED}
        names = catalog.names(connection)
        name = self._record.publication
        tables = catalog.look(connection, followed.keys(), name)
        missing = {table.oid for table in publication.missing(connection, name, list(tables.values()))}
        published, listed = publication.published_tables(connection, name), publication.listed(connection, name)
        return Sight(tables, names, missing, published, slot.insert_lsn(connection), listed)

    def _tell_awaited(self, connection: Connection | None) -> None:
        """Whom the stream waits for; without a connection nobody."""
        awaited = slot.awaited_standbys(connection, self.stream.session) if connection and self.stream else []
        if awaited != self._awaited:
            self._awaited = awaited
            self._say(
                f"PostgreSQL sends nothing that the standbys of synchronized_standby_slots lack: {', '.join(awaited)}. "
                "Bring them back, or take their slots out of that setting"
                if awaited
                else ""
            )

    def _beat(self) -> None:
        """So that the stream comes to what was seen."""
        with self._connector.connect() as connection:
            slot.heartbeat(connection)

    def _let_go(self, why: str, fix: str) -> None:
        if self.stream is not None:
            log.warning("stream let go", why=why, fix=fix)
            self.stream.hang_up()
