"""The copy of whole tables: Penstock from a fresh start, the peer, and the limits of both ends.

Penstock's clock runs from the log's ``stream open``, which is when its copy may begin, until ``table copied``, when every row is
durable; the whole process is shown beside it. The peer's runs from CREATE DATABASE until every row is counted. The limit at the
source reads the very part ranges that Penstock reads, over as many connections; the limit at the destination inserts
the very blocks that Penstock's decoder makes, over as many connections.
"""

from __future__ import annotations

import importlib.util
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import limits
from benchmarks.limits import DRAINED_COPY, NATIVE
from benchmarks.peer import CONTENDER as PEER
from benchmarks.peer import Peer
from benchmarks.pipe import DATABASE, EMBEDDED, SERVER, Pipe, pipe
from benchmarks.report import Figures, Target, at_least, number, table, times
from benchmarks.stage import SETTING_UP, Sample
from benchmarks.workload import sums, table_names
from penstock.clickhouse import capabilities
from penstock.clickhouse.client import Client
from penstock.config import load
from penstock.decode import CopyDecoder
from penstock.pipeline.ends import SourceEnd
from penstock.pipeline.prepare import compile_all, read_tables
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.stage import Stage

GROUP = "copy"
NATIVE_TABLE = "native"


def measure(stage: Stage) -> None:
    """Every table, as often as there are runs."""
    for name in table_names():
        for run in range(1, stage.runs + 1):
            with stage.noted(GROUP, name, SETTING_UP, run):
                _measure(stage, name, run)


def _measure(stage: Stage, name: str, run: int) -> None:
    expected = sums(stage.connection, name)
    rows = int(expected.split(maxsplit=1)[0])
    for where, server in ((EMBEDDED, None), (SERVER, stage.destination)):
        with pipe(stage, f"{name}{run}_{'server' if server else 'embedded'}", name, server) as made:
            stage.measure(GROUP, name, where, run, partial(_penstock, made, name, run, where=where, expected=expected))
            if server:
                with made.awake():
                    ends = Ends(made)
                    stage.measure(GROUP, name, NATIVE, run, partial(_native, stage, ends, name, run, rows))
                stage.measure(GROUP, name, DRAINED_COPY, run, partial(_drained, stage, ends, name, run, rows))
    with stage.awake(stage.peer):
        stage.measure(GROUP, name, PEER, run, partial(_peer, stage, name, run, rows))


def _penstock(made: Pipe, name: str, run: int, *, where: str, expected: str) -> Sample:
    outcome = made.run_once()
    found = made.sums()
    if found != expected:
        raise RuntimeError(f"the sums differ: {found.split()} instead of {expected.split()}")
    seconds = outcome.at("table copied") - outcome.at("stream open")
    more = {
        "process_seconds": round(outcome.process_seconds, 3),
        "process_cpu": round(outcome.process_cpu, 2),
        "copy_cpu": round(outcome.cpu_at["table copied"] - outcome.cpu_at["stream open"], 2),
        "most_memory_mb": round(max((size for _, size in outcome.memory), default=0) / 1e6),
        **outcome.ends.as_dict(),
    }
    return Sample(GROUP, name, where, run, int(expected.split(maxsplit=1)[0]), seconds, more)


def _peer(stage: Stage, name: str, run: int, rows: int) -> Sample:
    peer = Peer(stage, name)
    try:
        with stage.timed(stage.peer) as timing:
            peer.create()
            peer.wait_rows(rows)
    finally:
        peer.drop()
    return Sample(GROUP, name, PEER, run, rows, timing.seconds, timing.as_dict())


def _drained(stage: Stage, ends: Ends, name: str, run: int, rows: int) -> Sample:
    with stage.timed() as timing:
        ends.drain()
    return Sample(GROUP, name, DRAINED_COPY, run, rows, timing.seconds, timing.as_dict())


def _native(stage: Stage, ends: Ends, name: str, run: int, rows: int) -> Sample:
    server, plan = stage.destination, ends.plan
    server.query(f"create table {DATABASE}.{NATIVE_TABLE} as {DATABASE}.{plan.target}")
    bodies = list(ends.bodies())
    columns = ", ".join(plan.column_names)
    with stage.timed(server) as timing:
        limits.insert_bodies(server, NATIVE_TABLE, columns, bodies, ends.settings.copy_workers)
    found = int(server.query(f"select count() from {DATABASE}.{NATIVE_TABLE}"))
    if found != rows:
        raise RuntimeError(f"{found} rows arrived instead of {rows}")
    more = {**timing.as_dict(), "body_mb": round(sum(map(len, bodies)) / 1e6, 1), "blocks": len(bodies)}
    return Sample(GROUP, name, NATIVE, run, rows, timing.seconds, more)


class Ends:
    """A pipe's table as Penstock itself sees it: its plan, its parts, and what its decoder makes of them."""

    def __init__(self, made: Pipe) -> None:
        self.made = made
        definition = load(made.file)
        connector = Connector(definition.source, application_name="benchmarks")
        self.settings = definition.settings
        self._source = SourceEnd(connector)
        with (
            closing(Client.open(definition.destination, scratch=made.home / "scratch")) as client,
            connector.connect() as connection,
        ):
            (self.plan,), _ = compile_all(definition, read_tables(definition, connection), capabilities.ask(client))
        self.parts = self._source.plan_parts(self.plan, self.settings.copy_part_rows)

    def drain(self) -> None:
        """Read every part over as many connections as Penstock uses, and throw the text away.

        In Penstock's own compiled code; by psql where that is not there, for a loop in Python would be no limit.
        """
        if importlib.util.find_spec("penstock.postgres._drain") is None:
            limits.drain_copies(
                self.made.stage.source.dsn(), map(self._statement, self.parts), self.settings.copy_workers
            )
            return
        waiting = iter(self.parts)

        def work(_: int) -> None:
            for part in waiting:
                deque(self.chunks(part), maxlen=0)

        with ThreadPoolExecutor(self.settings.copy_workers) as threads:
            list(threads.map(work, range(self.settings.copy_workers)))

    def _statement(self, part: str) -> str:
        """The part's COPY; on PostgreSQL 18 a part is a range of blocks, or the whole table."""
        known = json.loads(part)
        bounds = ((">=", known["low"]), ("<", known["high"]))
        where = [f"ctid {operator} '({block},0)'::tid" for operator, block in bounds if block is not None]
        columns = ", ".join(column.name for column in self.plan.columns)
        return f"copy (select {columns} from only {self.made.table}{' where ' if where else ''}{' and '.join(where)}) to stdout"

    def chunks(self, part: str) -> Iterator[bytes]:
        """COPY's text."""
        return self._source.read_part(self.plan, part, "")

    def bodies(self) -> Iterator[bytes]:
        """The blocks Penstock would insert."""
        for part in self.parts:
            decoder = CopyDecoder(self.plan, self.settings.max_batch_rows, int(self.settings.max_batch_bytes), 0)
            for chunk in self.chunks(part):
                decoder.receive(chunk)
                while decoder.full:
                    yield _body(decoder)
            decoder.finish()
            yield _body(decoder)


def _body(decoder: CopyDecoder) -> bytes:
    batch = decoder.take()
    return b"".join(batch.chunks()) if batch else b""


# The report

HEADS = (
    "table",
    "contender",
    "rows/s",
    "seconds",
    "process s",
    "× drained COPY",
    "× peer",
    "× Native",
    "our CPU s",
    "PG CPU s",
    "CH CPU s",
)


def report(samples: Iterable[Sample]) -> str:
    """The table."""
    figures = Figures(samples, GROUP)

    def line(case: str, contender: str) -> tuple[str, ...]:
        return (
            case,
            contender,
            number(figures.rate(case, contender)),
            number(figures.median(case, contender, lambda each: each.seconds), 2),
            number(figures.more(case, contender, "process_seconds"), 2),
            times(figures.ratio(case, contender, DRAINED_COPY)),
            times(figures.ratio(case, contender, PEER)),
            times(figures.ratio(case, contender, NATIVE)),
            number(figures.more(case, contender, "copy_cpu") if contender == SERVER else None, 1),
            number(figures.more(case, contender, "postgres_cpu"), 1),
            number(figures.more(case, contender, "clickhouse_cpu"), 1),
        )

    return table(HEADS, [line(case, contender) for case in figures.cases for contender in figures.contenders(case)])


def targets(samples: Iterable[Sample]) -> list[Target]:
    """The project's targets for the copy."""
    figures = Figures(samples, GROUP)
    found = []
    for case in figures.tried:
        for where in (EMBEDDED, SERVER):
            found += [
                at_least(f"copy {case}, {where}: × drained COPY", 0.7, figures.ratio(case, where, DRAINED_COPY)),
                at_least(f"copy {case}, {where}: × {PEER}", 2.0, figures.ratio(case, where, PEER)),
            ]
    return found
