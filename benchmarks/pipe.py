"""The contender: Penstock's own command line, as a process of its own, watched from outside.

What it says in its log (JSON lines) marks the phases; CPU and memory come from /proc and wait4; the end of a stream is
when the slot is confirmed past the last change, which is after everything is durable in the destination.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.servers.postgres_binaries import PASSWORD

from benchmarks import cpu
from benchmarks.stage import PASSWORD_VARIABLE, Stage, Stopwatch, Timing
from benchmarks.workload import sums_query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.servers.clickhouse import ClickHouseServer

EMBEDDED, SERVER = "Penstock, embedded", "Penstock, server"
PENSTOCK = (sys.executable, "-m", "penstock")
LOOK_SECONDS = 0.02
MEMORY_SECONDS = 0.1
END_SECONDS = 900.0
DATABASE = "bench"


@dataclass(slots=True)
class Outcome:
    """What was seen of one process. Seconds count from its start; events are (second, line of the log)."""

    opened: Callable[[int], None] | None = None
    process_seconds: float = 0.0
    process_cpu: float = 0.0
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    cpu_at: dict[str, float] = field(default_factory=dict)  # our own CPU seconds when an event was first seen
    confirmed_after: float = 0.0  # second at which the slot was seen confirmed
    memory: list[tuple[float, int]] = field(default_factory=list)  # (second, resident bytes)
    ends: Timing = field(default_factory=Timing)  # from ``stream open`` to the process's end

    def at(self, event: str) -> float:
        """The second of the first such event. Raises LookupError."""
        for second, line in self.events:
            if line.get("event") == event:
                return second
        raise LookupError(f'the log never said "{event}"')

    @property
    def stream_seconds(self) -> float:
        """From the stream's opening until the slot was confirmed."""
        return self.confirmed_after - self.at("stream open")

    @property
    def stream_cpu(self) -> float:
        """Our own CPU seconds from the stream's opening on."""
        return self.process_cpu - self.cpu_at.get("stream open", 0.0)


class Pipe:
    """A pipe's definition and state for one destination: ``server``, or an embedded ClickHouse where that is None."""

    def __init__(self, stage: Stage, name: str, table: str, server: ClickHouseServer | None) -> None:
        self.stage, self.name, self.table, self.server = stage, name, table, server
        self.home = stage.scratch / name
        self.home.mkdir()
        self.file = self.home / "pipe.toml"
        destination = server.dsn() if server else f"chdb://{urllib.parse.quote(str(self.home / 'clickhouse'))}"
        self.file.write_text(_definition(name, stage.source.dsn(password=""), destination, table))
        self.slot = f"penstock_{name}"
        self.environment = os.environ | {"PENSTOCK_HOME": str(self.home), PASSWORD_VARIABLE: PASSWORD}

    def command(self, *words: str, program: Sequence[str] = PENSTOCK) -> list[str]:
        """Penstock's command line."""
        return [*program, "--log-format", "json", *words]

    def run_once(
        self, until: str = "", program: Sequence[str] = PENSTOCK, opened: Callable[[int], None] | None = None
    ) -> Outcome:
        """``penstock run --once``, to its end. ``until``: the position whose confirmation ends the stream. Raises RuntimeError.

        ``program`` is Penstock, or a profiler that runs it; ``opened`` hears of the process id when the stream opens.
        """
        outcome = Outcome(opened=opened)
        with self._started(self.command("run", str(self.file), "--once", program=program), outcome) as process:
            confirmed = (lambda: self.stage.confirmed(self.slot, until)) if until else (lambda: False)
            process.watch(confirmed)
        if process.exit_code:
            raise RuntimeError(f"penstock run --once ended with {process.exit_code}: {process.last_lines}")
        outcome.confirmed_after = outcome.confirmed_after or outcome.process_seconds
        return outcome

    @contextlib.contextmanager
    def running(self) -> Iterator[Outcome]:
        """``penstock run``, caught up, while the context lasts."""
        outcome = Outcome()
        with self._started(self.command("run", str(self.file)), outcome) as process:
            process.wait_event("table streaming")
            yield outcome

    @contextlib.contextmanager
    def _started(self, command: list[str], outcome: Outcome) -> Iterator[Process]:
        with self.awake():
            process = Process(self, command, outcome)
            try:
                yield process
            finally:
                process.end()

    def awake(self) -> contextlib.AbstractContextManager[object]:
        """Let the destination's server work while the context lasts."""
        return self.stage.awake(self.server) if self.server else contextlib.nullcontext()

    def sums(self) -> str:
        """Rows and sums of what a reader sees, once nobody runs the pipe."""
        query = sums_query(self.table, f"{self.table}_current")
        if self.server:
            with self.awake():
                return self.server.query(query, database=DATABASE).strip()
        command = self.command("query", str(self.file), query, "--format", "TSV")
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout.strip()

    def remove(self) -> None:
        """Drop what the pipe made at both ends; its folder goes with the stage's."""
        self.stage.drop_slot(self.slot)
        if self.server:
            with self.awake():
                self.server.query(f"drop database if exists {DATABASE} sync")


@contextlib.contextmanager
def pipe(stage: Stage, name: str, table: str, server: ClickHouseServer | None) -> Iterator[Pipe]:
    """A fresh pipe, removed at the end."""
    made = Pipe(stage, name, table, server)
    try:
        yield made
    finally:
        made.remove()


class Process:
    """One run of the command, with a thread that reads its log."""

    def __init__(self, owner: Pipe, command: list[str], outcome: Outcome) -> None:
        self._stage, self._server, self.outcome = owner.stage, owner.server, outcome
        self._news = threading.Condition()
        self._opened: Stopwatch | None = None
        self._began = time.monotonic()
        self.exit_code: int | None = None
        self._process = subprocess.Popen(
            command,
            env=owner.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def last_lines(self) -> str:
        """The end of its log, without the arrows of a traceback."""
        said = [f"{line.get('event')} {line.get('error', '')}".strip() for _, line in self.outcome.events]
        return " | ".join([each for each in said if each.strip("^~ ")][-4:])

    def _read(self) -> None:
        for text in self._process.stderr or ():
            second = time.monotonic() - self._began
            try:
                line = json.loads(text)
            except ValueError:
                line = {"event": text.strip()}
            event = str(line.get("event"))
            used = cpu.seconds(self.pid)
            with self._news:
                self.outcome.cpu_at.setdefault(event, used)
                self.outcome.events.append((second, line))
                if event == "stream open" and self._opened is None:
                    self._opened = Stopwatch(self._stage, self._server)
                    if self.outcome.opened:
                        self.outcome.opened(self.pid)
                self._news.notify_all()

    def wait_event(self, event: str) -> None:
        """Wait until the log says ``event``. Raises TimeoutError or RuntimeError."""

        def seen() -> bool:
            return any(line.get("event") == event for _, line in self.outcome.events) or not self._reader.is_alive()

        with self._news:
            if not self._news.wait_for(seen, 60):
                raise TimeoutError(f'penstock did not say "{event}" within 60 s: {self.last_lines}')
        if not self._reader.is_alive():
            raise RuntimeError(f"penstock ended early: {self.last_lines}")

    def watch(self, confirmed: Callable[[], bool]) -> None:
        """Look at the process until it ends: its memory, its CPU, and when ``confirmed`` becomes true."""
        looked_at_memory = 0.0
        while not self._ended():
            second = time.monotonic() - self._began
            if second > END_SECONDS:
                raise TimeoutError(f"penstock run --once did not end within {END_SECONDS:.0f} s: {self.last_lines}")
            if second - looked_at_memory >= MEMORY_SECONDS:
                looked_at_memory = second
                self.outcome.memory.append((second, cpu.resident_bytes(self.pid)))
            if not self.outcome.confirmed_after and confirmed():
                self.outcome.confirmed_after = time.monotonic() - self._began
            time.sleep(LOOK_SECONDS)

    def _ended(self) -> bool:
        if self.exit_code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._close(status, usage.ru_utime + usage.ru_stime)
        return self.exit_code is not None

    def _close(self, status: int, used: float) -> None:
        self.outcome.process_seconds = time.monotonic() - self._began
        self.outcome.process_cpu = used
        self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._opened:
            self._opened.stop(self.outcome.ends)

    def end(self) -> None:
        """End it in order, or else by force."""
        deadline = time.monotonic() + 15
        if not self._ended():
            os.kill(self.pid, signal.SIGTERM)
        while not self._ended():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(LOOK_SECONDS)
        self._reader.join(5)


def _definition(name: str, source: str, destination: str, table: str) -> str:
    """All settings are Penstock's defaults."""
    quoted = json.dumps
    return f"""\
[pipe]
name = {quoted(name)}
[source]
dsn = {quoted(source)}
password = {{ env = {quoted(PASSWORD_VARIABLE)} }}
[destination]
dsn = {quoted(destination)}
database = {quoted(DATABASE)}
[tables]
include = [{quoted("public." + table)}]
"""
