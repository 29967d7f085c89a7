"""What every measurement needs: the source, two ClickHouse servers, a scratch folder, and samples of what was measured.

Penstock and its peer get a ClickHouse each, of the same kind. Whoever is not being measured is frozen (SIGSTOP), so that its
background work costs the others nothing. Everything is stopped and removed at the end, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.postgres import PostgresServer
from tests.servers.postgres_binaries import PASSWORD

from benchmarks import cpu, workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.scale import Scale

SOURCE_SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "logical_decoding_work_mem": "256MB",  # what Penstock sets for its own session, for everybody
    "jit": "off",
}
SETTING_UP = "setting up"  # the contender of a sample that says why there are no others
PEER_PROFILE = {"allow_experimental_database_materialized_postgresql": "1"}
PASSWORD_VARIABLE = "PENSTOCK_BENCHMARK_PASSWORD"


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender, measured once. ``amount`` counts rows or changes; ``error`` says why there is no figure."""

    group: str
    case: str
    contender: str
    run: int
    amount: int = 0
    seconds: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(slots=True)
class Timing:
    """Seconds that passed, and CPU seconds of both ends meanwhile."""

    seconds: float = 0.0
    postgres_cpu: float = 0.0
    clickhouse_cpu: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """For a sample."""
        return {"postgres_cpu": round(self.postgres_cpu, 2), "clickhouse_cpu": round(self.clickhouse_cpu, 2)}


class Stage:
    """The servers, running while the context lasts."""

    def __init__(self, scale: Scale, runs: int) -> None:
        self.scale = scale
        self.runs = runs
        self.samples: list[Sample] = []
        self._awake: Counter[int] = Counter()
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        with contextlib.ExitStack() as ends:
            self.scratch = Path(tempfile.mkdtemp(prefix="penstock-benchmarks-"))
            ends.callback(shutil.rmtree, self.scratch, ignore_errors=True)
            self.source = ends.enter_context(PostgresServer(18, SOURCE_SETTINGS))
            self.destination = ends.enter_context(ClickHouseServer())
            self.peer = ends.enter_context(ClickHouseServer(profile=PEER_PROFILE))
            self.connection = ends.enter_context(self.source.connect())
            self.versions = {
                "PostgreSQL": str(self.connection.execute("show server_version").fetchone()[0]),  # type: ignore[index]
                "ClickHouse": self.destination.query("select version()").strip(),
            }
            os.environ[PASSWORD_VARIABLE] = PASSWORD
            for server in (self.destination, self.peer):
                server.freeze()
            say(f"making the tables ({self.scale.name})")
            workload.create_tables(self.connection, self.scale)
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.close()

    # Measuring

    def measure(self, group: str, case: str, contender: str, run: int, work: Callable[[], Sample]) -> None:
        """Run ``work`` and keep its sample; a contender that fails is noted, and the others go on."""
        with self.noted(group, case, contender, run):
            self.keep(work())

    @contextlib.contextmanager
    def noted(self, group: str, case: str, contender: str, run: int) -> Iterator[None]:
        """Turn what is raised in the context into a sample that says so: the report shows it, and the others go on."""
        try:
            yield
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.keep(Sample(group, case, contender, run, error=text[:500]))

    def keep(self, sample: Sample) -> None:
        """Add a sample to those that the report is made of, and say so."""
        rate = (
            f"{sample.seconds:.2f} s, {sample.amount / sample.seconds:,.0f}/s"
            if sample.seconds
            else sample.error or "done"
        )
        say(f"{sample.group} {sample.case}, run {sample.run} of {self.runs}: {sample.contender}: {rate}")
        self.samples.append(sample)

    @contextlib.contextmanager
    def awake(self, server: ClickHouseServer) -> Iterator[ClickHouseServer]:
        """Let a frozen ClickHouse work while the context lasts; contexts may lie within one another."""
        if not self._awake[id(server)]:
            server.thaw()
        self._awake[id(server)] += 1
        try:
            yield server
        finally:
            self._awake[id(server)] -= 1
            if not self._awake[id(server)]:
                server.freeze()

    @contextlib.contextmanager
    def timed(self, server: ClickHouseServer | None = None) -> Iterator[Timing]:
        """Time what happens in the context."""
        timing, clock = Timing(), Stopwatch(self, server)
        yield timing
        clock.stop(timing)

    def postgres_cpu(self) -> float:
        """CPU seconds of PostgreSQL so far."""
        return cpu.tree_seconds(process_id(self.source))

    # The source

    def wal_end(self) -> str:
        """Where the source's WAL ends."""
        return str(self._value(sql.SQL("select pg_current_wal_insert_lsn()")))

    def confirmed(self, slot: str, lsn: str) -> bool:
        """Whether a slot is confirmed up to ``lsn``."""
        row = self.connection.execute(
            "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = %s", (lsn, slot)
        ).fetchone()
        return bool(row and row[0])

    def make_slot(self, name: str, table: str) -> None:
        """A pgoutput slot and a publication of the same name."""
        self.connection.execute(
            sql.SQL("create publication {} for table {}").format(sql.Identifier(name), sql.Identifier(table))
        )
        self.connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))

    def drop_slot(self, name: str) -> None:
        """Drop a slot and its publication, where they are, once nobody streams from it."""
        deadline = time.monotonic() + 20
        while self._holder(name) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        self.connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (name,)
        )
        self.connection.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(name)))

    def _holder(self, slot: str) -> object:
        row = self.connection.execute(
            "select active_pid from pg_replication_slots where slot_name = %s", (slot,)
        ).fetchone()
        return row[0] if row else None

    def _value(self, statement: sql.SQL) -> object:
        row = self.connection.execute(statement).fetchone()
        return row[0] if row else None


class Stopwatch:
    """Seconds and CPU seconds from its making on."""

    def __init__(self, stage: Stage, server: ClickHouseServer | None) -> None:
        self._stage, self._server = stage, server
        self._postgres, self._clickhouse, self._began = stage.postgres_cpu(), self._clickhouse_cpu(), time.monotonic()

    def stop(self, timing: Timing) -> None:
        """Write down what has passed."""
        timing.seconds = time.monotonic() - self._began
        timing.postgres_cpu = self._stage.postgres_cpu() - self._postgres
        timing.clickhouse_cpu = self._clickhouse_cpu() - self._clickhouse

    def _clickhouse_cpu(self) -> float:
        return cpu.seconds(process_id(self._server)) if self._server else 0.0


def process_id(server: PostgresServer | ClickHouseServer) -> int:
    """The process of a running server."""
    process = server._process
    if process is None:
        raise RuntimeError("the server does not run")
    return process.pid


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def wait_until(done: Callable[[], bool], *, seconds: float, what: str, every: float = 0.02) -> None:
    """Wait for an event. Raises TimeoutError, which names it."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
