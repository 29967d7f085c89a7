"""Looks at the source from beside the stream: how far its WAL is, what the slot retains, and whether it waits for us to end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from penstock.errors import SourceError, SourceUnavailableError
from penstock.lsn import Lsn
from penstock.pipeline.evolve import unpublished
from penstock.pipeline.lifecycle import State
from penstock.postgres import publication, slot

if TYPE_CHECKING:
    from collections.abc import Collection

    from penstock.pipeline.checkpoint import PipeRecord
    from penstock.pipeline.lane import Lane
    from penstock.postgres.connection import Connector
    from penstock.postgres.stream import Stream

log = structlog.get_logger()

LOOK_SECONDS = 2.0
REFUSALS = 3  # looks in a row without a connection, nor any progress, until the stream is let go


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
    """What is known of the source, looked up every ``LOOK_SECONDS``. A table that was dropped or is not published any more is set aside.

    A server that shuts down takes no new connections and waits until its senders have been told that everything is flushed. A pipe
    that cannot write, perhaps because it has to read rows of that very server again, would keep it waiting for ever: it lets go.
    """

    def __init__(self, connector: Connector, record: PipeRecord, lanes: Collection[Lane], progress: Progress) -> None:
        self.source_end = Lsn(0)
        self.retained_bytes: int | None = None
        self.stream: Stream | None = None  # the one that is open
        self._connector = connector
        self._record = record
        self._lanes = lanes
        self._gone: set[int] = set()  # tables whose changes do not come
        self._progress = progress

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
                await self._set_aside()
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
            tables = [lane.plan.table for lane in self._lanes if lane.record.state is not State.FAILED]
            gone = publication.missing(connection, self._record.publication, tables)
            self._gone = {table.oid for table in gone}
            if nudge and self.source_end > self._progress.position:
                slot.heartbeat(connection)

    async def _set_aside(self) -> None:
        for lane in self._lanes:
            if lane.plan.table.oid in self._gone:
                await lane.fail(unpublished(lane.plan.table))

    def _let_go(self, error: SourceUnavailableError) -> None:
        if self.stream is not None:
            log.warning("stream let go", why=f"nothing can be written, and {error.message}", fix=error.hint)
            self.stream.hang_up()
