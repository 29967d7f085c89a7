"""The demo while it lasts: the pipe runs, people look at it and at the data, then both sides are compared."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from typing import TYPE_CHECKING

from penstock.control.queries import answer
from penstock.demo import shop
from penstock.demo.analytics import ask
from penstock.demo.equality import compare
from penstock.demo.probe import Probe
from penstock.demo.scene import Moment
from penstock.demo.summary import Summary
from penstock.errors import DestinationUnavailableError, PenstockError
from penstock.pipeline.ends import SourceEnd
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg import Connection

    from penstock.demo.analytics import Answer
    from penstock.demo.scene import Scene
    from penstock.demo.workload import Workload
    from penstock.observe.status import PipeStatus
    from penstock.pipeline.run import Run

NAME = "shop"
DRAIN_SECONDS = 120.0
POLL_SECONDS = 0.05
DRAW_SECONDS = 0.25
QUESTION_SECONDS = 2.0


class Show:
    """One run of the demo's pipe, watched."""

    def __init__(self, run: Run, workload: Workload, connection: Connection, scene: Scene) -> None:
        self._run = run
        self._workload = workload
        self._connection = connection
        self._scene = scene
        self._probe = Probe(connection, self._rows)
        self._answers: list[Answer] = []
        self._told_to_stop = asyncio.Event()
        self._closing = threading.Event()
        self._began = time.monotonic()

    async def play(self, seconds: float, folder: Path) -> Summary:
        """Watch for ``seconds`` (0: until a signal), drain, compare, stop the pipe. Raises PenstockError when the pipe ends early."""
        self._listen()
        async with answer(folder, NAME, self._run):
            pipe = asyncio.create_task(self._run.run(), name="pipe")
            try:
                with self._scene:
                    await self._watch(pipe, seconds)
                    counts = await asyncio.to_thread(self._workload.stop)
                    status = await self._drained(pipe)
                lasted = time.monotonic() - self._began
                self._scene.say("The workload has ended; every row of both sides is compared.")
                comparisons = await asyncio.to_thread(
                    compare, self._connection, self._rows, tables=shop.TABLES, view=lambda name: f"{name}_current"
                )
            finally:
                self._closing.set()
                self._run.stop()
                await asyncio.gather(pipe, return_exceptions=True)
        pipe.result()
        return Summary(tuple(comparisons), counts, status, self._probe.latencies, lasted)

    def _listen(self) -> None:
        """The first signal ends the show in order; the second one unwinds at once."""
        loop = asyncio.get_running_loop()

        def first() -> None:
            self._told_to_stop.set()
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(each)
                signal.signal(each, signal.default_int_handler)

        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, first)

    async def _watch(self, pipe: asyncio.Task[None], seconds: float) -> None:
        """Draw until the time is over, the pipe has ended, or somebody says so. Looking at the data begins when it is consistent."""
        looking: list[asyncio.Task[None]] = []
        told = asyncio.create_task(self._told_to_stop.wait())
        try:
            while not (pipe.done() or told.done() or 0 < seconds <= time.monotonic() - self._began):
                if not looking and self._consistent():
                    looking = [
                        asyncio.create_task(asyncio.to_thread(self._probe.run, self._closing)),
                        asyncio.create_task(self._ask()),
                    ]
                self._draw(seconds)
                await asyncio.wait([pipe, told, *looking], timeout=DRAW_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                self._raise_failed(looking)
        finally:
            told.cancel()
            self._closing.set()
            await asyncio.gather(*looking, return_exceptions=True)
        self._raise_failed(looking)

    async def _ask(self) -> None:
        while not self._closing.is_set():
            self._answers = await asyncio.to_thread(ask, self._rows)
            await asyncio.to_thread(self._closing.wait, QUESTION_SECONDS)

    def _raise_failed(self, looking: list[asyncio.Task[None]]) -> None:
        for each in looking:
            if each.done():
                each.result()

    async def _drained(self, pipe: asyncio.Task[None]) -> PipeStatus:
        """Wait until everything that is committed at the source can be read in the destination."""
        source = SourceEnd(Connector(self._run.pipe.source, application_name="penstock demo"))
        goal = await asyncio.to_thread(source.goal)
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            if pipe.done():
                pipe.result()
                raise PenstockError("the pipe ended before it had caught up", hint="Run the demo again.")
            if self._run.status().confirmed >= goal and self._consistent():
                return self._run.status()
            if time.monotonic() > deadline:
                raise DestinationUnavailableError(
                    f"the pipe had not caught up {DRAIN_SECONDS:.0f} s after the workload ended",
                    hint="Run the demo again on a machine with less to do; if it stays, report it with this output.",
                )
            self._draw(0)
            await asyncio.sleep(POLL_SECONDS)

    def _consistent(self) -> bool:
        tables = self._run.status().tables
        return bool(tables) and all(table.state == "streaming" for table in tables)

    def _draw(self, seconds: float) -> None:
        left = seconds - (time.monotonic() - self._began) if seconds else None
        self._scene.draw(
            Moment(self._run.status(), self._workload.counts, tuple(self._answers), self._probe.latencies, left)
        )

    def _rows(self, select: str) -> list[list[object]]:
        """The destination's answer; in a thread."""
        return [json.loads(line) for line in self._run.query(select, "JSONCompactEachRow").splitlines()]
