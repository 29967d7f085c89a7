"""Looks at the source from beside the stream: how far its WAL is, what the slot retains, and whether it waits for us to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import structlog

from penstock.errors import SourceError, SourceUnavailableError
from penstock.lsn import Lsn
from penstock.pipeline.lifecycle import State
from penstock.postgres import catalog, publication, slot
from penstock.table import Table

if TYPE_CHECKING:
    from penstock.pipeline.checkpoint import PipeRecord
    from penstock.pipeline.lane import Lane
    from penstock.postgres.connection import Connector
    from penstock.postgres.stream import Stream

log = structlog.get_logger()

LOOK_SECONDS = 2.0
CATALOG_SECONDS = 3.0
LOCK_TIMEOUT = "2s"
REFUSALS = 3  # looks in a row without a connection, nor any progress, until the stream is let go


Hearing = Callable[[Mapping[int, Table], Mapping[int, str], set[int], Lsn], None]
"""Tables by oid, the names of all tables, those that are not published any more, and a position behind what was seen."""


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


class Lookout:
    """What is known of the source, looked up every ``LOOK_SECONDS``, the tables' definitions every ``CATALOG_SECONDS``.

    A server that shuts down takes no new connections and waits until its senders have been told that everything is flushed. A pipe
    that cannot write, perhaps because it has to read rows of that very server again, would keep it waiting for ever: it lets go.
    """

    def __init__(
        self, connector: Connector, record: PipeRecord, lanes: Mapping[int, Lane], progress: Progress, hear: Hearing
    ) -> None:
        self.source_end = Lsn(0)
        self.retained_bytes: int | None = None
        self.stream: Stream | None = None  # the one that is open
        self._connector = connector
        self._record = record
        self._lanes = lanes
        self._progress = progress
        self._hear = hear
        self._read_at = -CATALOG_SECONDS
        self.has_read = False  # the catalog, once at least

    async def run(self) -> None:
        """Look until cancelled."""
        position = written = Lsn(0)
        refusals = 0
        while True:
            still = position == self._progress.position
            held_up = written == self._progress.written < self._progress.received
            position, written = self._progress.position, self._progress.written
            try:
                await asyncio.to_thread(self._ask, nudge=still)
                if time.monotonic() - self._read_at > CATALOG_SECONDS:
                    self._hear(*await asyncio.to_thread(self._read, dict(self._lanes)))
                    self._read_at = time.monotonic()
                    self.has_read = True
                refusals = 0
            except SourceUnavailableError as error:
                refusals = refusals + 1 if held_up else 0
                if refusals >= REFUSALS:
                    refusals = 0
                    self._let_go(error)
            except SourceError:
                refusals = 0  # whoever needs the source comes upon it too, and says so
            await asyncio.sleep(LOOK_SECONDS)

    def _ask(self, *, nudge: bool) -> None:
        """``nudge`` the stream where it has not moved although there was something."""
        with self._connector.connect() as connection:
            self.source_end = slot.insert_lsn(connection)
            state = slot.slot_state(connection, self._record.slot)
            self.retained_bytes = state.retained_bytes if state else None
            if nudge and self.source_end > self._progress.position:
                slot.heartbeat(connection)

    def _read(self, lanes: dict[int, Lane]) -> tuple[dict[int, Table], dict[int, str], set[int], Lsn]:
        """The pipe's tables, the names of all, those that are not published any more, and a position behind it all."""
        with self._connector.connect() as connection:
            connection.execute(f"set lock_timeout = '{LOCK_TIMEOUT}'")  # others' DDL must not keep us from looking
            names = catalog.names(connection)
            followed = {oid: lane.ahead.table for oid, lane in lanes.items() if lane.record.state is not State.FAILED}
            tables = catalog.look(connection, followed.keys())
            unpublished = publication.missing(connection, self._record.publication, list(followed.values()))
            goal = slot.insert_lsn(connection)
            slot.heartbeat(connection)
        return tables, names, {table.oid for table in unpublished}, goal

    def _let_go(self, error: SourceUnavailableError) -> None:
        if self.stream is not None:
            log.warning("stream let go", why=f"nothing can be written, and {error.message}", fix=error.hint)
            self.stream.hang_up()
