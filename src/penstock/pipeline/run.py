"""One pipe, running: opens both ends, copies, follows, reports, and ends in order.

prepare ──► stream (re-opened whenever it is cut) ──► drain
   ▲    └─► fence ──► copy
   │    └─► look at the source from beside the stream
   └─────── failover
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from penstock.clickhouse.client import Client
from penstock.errors import DestinationError, PenstockError, SourceChangedError, TimelineChangedError
from penstock.observe.status import Latencies, PipeStatus
from penstock.observe.words import duration
from penstock.pipeline import retry
from penstock.pipeline.ends import SourceEnd
from penstock.pipeline.figures import at_rest
from penstock.pipeline.prepare import Prepared, prepare
from penstock.pipeline.round import Round, Telling
from penstock.postgres.connection import Connector
from penstock.postgres.waiting import Waiting, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import Store

log = structlog.get_logger()

THREADS = 24  # for inserts, saving and looking around


class Run:
    """One run of a pipe. ``await run()`` ends when the pipe is told to stop, has caught up (``once``), or cannot go on."""

    def __init__(self, pipe: Pipe, store: Store, scratch: Path) -> None:
        self.pipe = pipe
        self._store = store
        self._scratch = scratch
        self._stop = retry.Stop()
        self._state = "starting"
        self._notes: dict[object, str] = {}
        self._trouble = ""
        self._away_since = 0.0  # there is no stream
        self._connector = Connector(pipe.source, application_name=f"penstock {pipe.name}")
        self._source = SourceEnd(self._connector, scratch, pipe.publication)
        self._client: Client | None = None
        self._round: Round | None = None
        self._latencies = Latencies()

    def stop(self) -> None:
        """End in order: what was read is written, saved and confirmed."""
        self._state = "stopping"
        self._stop.set()
        if self._round is not None:
            self._round.stop()

    def query(self, sql: str, output_format: str) -> bytes:
        """Read the destination; in a thread. Raises DestinationError."""
        if self._client is None:
            raise PenstockError("the pipe is just starting or ending", hint="Ask again in a moment.")
        return self._client.raw(sql, output_format, database=self.pipe.database)

    def resync(self, names: Sequence[str]) -> None:
        """Copy tables, or without names all of them, again, beside those that are read; called in a thread.

        Raises ConfigError for one that the pipe does not have.
        """
        if self._round is None:
            raise PenstockError("the pipe is just starting or ending", hint="Ask again in a moment.")
        self._round.resync(names)

    # Running

    async def run(self, *, once: bool = False) -> None:
        """Run the pipe. Raises PenstockError when it cannot go on."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="pipe"))
        try:
            await self._rounds(once=once)
        except retry.Stopped:
            self._state = "stopped"
        except PenstockError:
            if self._state != "stopping":
                self._state = "failed"
                raise
            self._state = "stopped"
        else:
            self._state = "stopped"
        finally:
            if self._client is not None:
                client, self._client = self._client, None
                await asyncio.to_thread(_close, client)

    async def _rounds(self, *, once: bool) -> None:
        """Flow, from the beginning again whenever the source has failed over."""
        client = self._client = await asyncio.to_thread(Client.open, self.pipe.destination, scratch=self._scratch)
        prepared = await asyncio.to_thread(self._prepare, client)
        telling = Telling(self._voice, self._report, self._lost, self._opened, self._visible)
        while not self._stop:
            self._notes.clear()
            current = self._round = Round(self.pipe, self._store, (self._source, client), prepared, telling)
            self._state = "running"
            try:
                await current.flow(once=once)
            except TimelineChangedError as error:
                self._lost(error)
                await current.clear()
                self._round = None
                prepared = await retry.for_ever(
                    lambda: asyncio.to_thread(self._prepare, client), self._stop, self._lost
                )
            else:
                return

    def _prepare(self, client: Client) -> Prepared:
        waiting = Waiting(self._voice(), lambda: bool(self._stop))
        self._connector.guard = lambda _connection: None  # it is to be found out where it leads
        while True:
            with (
                self._connector.connect() as connection,
                contextlib.suppress(SourceChangedError),
                told(connection, "the start", waiting),
            ):
                return prepare(self.pipe, self._store, connection, client, waiting)

    # What is being waited for

    def _opened(self) -> None:
        self._trouble = ""
        if self._away_since:
            log.info("source is back", away=duration(time.monotonic() - self._away_since))
        self._away_since = 0.0

    def _lost(self, error: PenstockError) -> None:
        """The stream is cut, or cannot be had."""
        self._away_since = self._away_since or time.monotonic()
        self._report(error)

    def _voice(self) -> Callable[[str], None]:
        """For one who may have to wait: is told what for, and an empty text when that is over. Several may wait at a time."""
        mine = object()

        def say(note: str) -> None:
            if note != self._notes.get(mine, ""):
                self._notes[mine] = note
                if note:
                    log.info("waiting", why=note)

        return say

    def _report(self, error: PenstockError) -> None:
        if error.message != self._trouble:
            self._trouble = error.message
            log.warning("trying again", error=error.message, fix=error.hint)

    def _visible(self, committed_at: int, rows: int) -> None:
        if committed_at and rows:
            self._latencies.add(time.time() * 1000 - committed_at / 1000)

    # What people see

    def status(self) -> PipeStatus:
        """The pipe as it is at the moment."""
        if self._round is None:
            known = at_rest(self._store, self.pipe.name) or PipeStatus(self.pipe.name, "")
        else:
            known = replace(self._round.status, latency_p50_ms=self._latencies.p50, latency_p99_ms=self._latencies.p99)
        return replace(
            known,
            state=self._state,
            note="; ".join(filter(None, list(self._notes.values()))) or self._away,
            last_error=self._trouble,
        )

    @property
    def _away(self) -> str:
        return f"the source is away for {duration(time.monotonic() - self._away_since)}" if self._away_since else ""


def _close(client: Client) -> None:
    with contextlib.suppress(DestinationError):  # it may be away
        client.end_reading()
    client.close()
