"""Latency: from a commit's return until a reader of the destination finds the row.

A prober commits rows with ids that nothing else uses and remembers when each commit returned; a reader asks the destination for
new ones, one question after the other, and remembers when each was first seen. The time the question takes is part of the figure.
"""

from __future__ import annotations

import http.client
import math
import random
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.peer import CONTENDER as PEER
from benchmarks.peer import followed
from benchmarks.pipe import DATABASE, EMBEDDED, SERVER, Pipe, pipe
from benchmarks.report import Figures, Target, at_most, number, table
from benchmarks.stage import SETTING_UP, Sample, wait_until
from benchmarks.workload import CHANGED, empty_changed, insert_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.servers.clickhouse import ClickHouseServer

    from benchmarks.stage import Stage

GROUP = "latency"
LONE, LOADED = "lone rows", "under load"
FIRST_PROBE = 1_000_000_000_000
LONE_PAUSE, LOADED_PAUSE = 0.3, 0.1
READ_PAUSE = 0.004
ARRIVAL_SECONDS = 30.0
LOAD_TRANSACTIONS_PER_SECOND = 50


@dataclass(slots=True)
class Probes:
    """When each probe was committed, and when it was first seen."""

    committed: dict[int, float] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)

    def milliseconds(self) -> list[float]:
        """Latencies, sorted. A row may be seen before its commit has returned to the prober: that is 0."""
        return sorted(max(0.0, self.seen[each] - at) * 1000 for each, at in self.committed.items())


def measure(stage: Stage) -> None:
    """Lone rows, then rows under load, for Penstock; lone rows for the peer."""
    for run in range(1, stage.runs + 1):
        for where in (EMBEDDED, SERVER):
            with stage.noted(GROUP, where, SETTING_UP, run):
                _penstock(stage, run, where)
        with stage.noted(GROUP, PEER, SETTING_UP, run):
            _peer(stage, run)


def _penstock(stage: Stage, run: int, where: str) -> None:
    empty_changed(stage.connection)
    server = stage.destination if where == SERVER else None
    with pipe(stage, f"latency{run}_{'server' if server else 'embedded'}", CHANGED, server) as made, made.running():
        ask = _over_http(server, DATABASE) if server else _over_socket(made)
        relation = f"{CHANGED}_current"
        stage.measure(GROUP, LONE, where, run, lambda: _lone(stage, run, where, relation, ask))
        stage.measure(GROUP, LOADED, where, run, lambda: _loaded(stage, run, where, relation, ask))


def _peer(stage: Stage, run: int) -> None:
    empty_changed(stage.connection)
    with followed(stage, CHANGED) as peer, stage.awake(stage.peer):
        ask = _over_http(stage.peer, "default")
        stage.measure(GROUP, LONE, PEER, run, lambda: _lone(stage, run, PEER, peer.relation, ask))


def _lone(stage: Stage, run: int, contender: str, relation: str, ask: Callable[[str], str]) -> Sample:
    probes = _probe(stage, FIRST_PROBE, stage.scale.probes, LONE_PAUSE, relation=relation, ask=ask)
    return _sample(LONE, contender, run, probes)


def _loaded(stage: Stage, run: int, contender: str, relation: str, ask: Callable[[str], str]) -> Sample:
    scale = stage.scale
    done = threading.Event()
    rows = [0.0]
    loader = threading.Thread(target=_load, args=(stage, done, rows), daemon=True)
    began = time.monotonic()
    loader.start()
    try:
        count = int(scale.load_seconds / LOADED_PAUSE)
        probes = _probe(stage, 2 * FIRST_PROBE, count, LOADED_PAUSE, relation=relation, ask=ask)
    finally:
        seconds = time.monotonic() - began
        done.set()
        loader.join(30)
    return _sample(LOADED, contender, run, probes, rows_per_second=round(rows[0] / seconds))


def _load(stage: Stage, done: threading.Event, rows: list[float]) -> None:
    """Insert rows at an even rate until told to stop; what it managed is in the sample."""
    each = stage.scale.load_rows_per_second // LOAD_TRANSACTIONS_PER_SECOND
    began = time.monotonic()
    with stage.source.connect() as connection:
        number_ = 0
        while not done.wait(max(0.0, began + number_ / LOAD_TRANSACTIONS_PER_SECOND - time.monotonic())):
            connection.execute(insert_rows(number_ * each + 1, (number_ + 1) * each).encode())
            number_ += 1
            rows[0] += each


def _probe(stage: Stage, first: int, count: int, pause: float, *, relation: str, ask: Callable[[str], str]) -> Probes:
    """Commit ``count`` rows, about ``pause`` seconds apart, while another thread looks for them. Raises TimeoutError."""
    probes, ended = Probes(), threading.Event()
    errors: list[Exception] = []

    def read() -> None:
        newest = first
        while not ended.wait(READ_PAUSE):
            try:
                answer = ask(f"select id from {relation} where id > {newest} and id <= {first + count} order by id")
            except Exception as error:  # told by the thread that waits
                errors.append(error)
                return
            now = time.monotonic()
            for line in answer.split():
                newest = int(line)
                probes.seen[newest] = now

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    chance = random.Random(first)
    try:
        with stage.source.connect() as connection:
            for id_ in range(first + 1, first + count + 1):
                connection.execute(insert_rows(id_, id_).encode())
                probes.committed[id_] = time.monotonic()
                time.sleep(pause * chance.uniform(0.7, 1.3))
        wait_until(
            lambda: len(probes.seen) == count or bool(errors), seconds=ARRIVAL_SECONDS, what="the last probes arrive"
        )
    finally:
        ended.set()
        reader.join(30)
    if errors:
        raise errors[0]
    return probes


def _sample(case: str, contender: str, run: int, probes: Probes, **more: float) -> Sample:
    found = probes.milliseconds()
    figures = {
        "p50_ms": round(_percentile(found, 50), 1),
        "p99_ms": round(_percentile(found, 99), 1),
        "most_ms": round(found[-1], 1),
    }
    return Sample(GROUP, case, contender, run, len(found), more={**figures, **more})


def _percentile(values: list[float], percent: int) -> float:
    """The nearest rank."""
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _over_http(server: ClickHouseServer, database: str) -> Callable[[str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)

    def ask(query: str) -> str:
        connection.request("POST", "/?" + urllib.parse.urlencode({"database": database}), query)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != http.client.OK:
            raise RuntimeError(text[:300])
        return text

    return ask


def _over_socket(made: Pipe) -> Callable[[str], str]:
    from penstock.control.queries import ask as ask_running

    def ask(query: str) -> str:
        answer = ask_running(made.home, made.name, query, "TSV")
        if answer is None:
            raise RuntimeError("the pipe does not run")
        return answer.decode()

    return ask


# The report


def report(samples: Iterable[Sample]) -> str:
    """The table."""
    figures = Figures(samples, GROUP)

    def line(case: str, contender: str) -> tuple[str, ...]:
        shown = [number(figures.more(case, contender, name), 1) for name in ("p50_ms", "p99_ms", "most_ms")]
        return case, contender, *shown, number(figures.more(case, contender, "rows_per_second"))

    heads = ("case", "contender", "p50 ms", "p99 ms", "most ms", "load rows/s")
    return table(heads, [line(case, contender) for case in figures.cases for contender in figures.contenders(case)])


def targets(samples: Iterable[Sample]) -> list[Target]:
    """The project's targets for latency."""
    figures = Figures(samples, GROUP)
    wanted = ((LONE, "p50", 150), (LONE, "p99", 500), (LOADED, "p99", 2000))
    return [
        at_most(f"latency, {case}, {where}: {name}", most, figures.more(case, where, f"{name}_ms"), "ms")
        for where in (EMBEDDED, SERVER)
        for case, name, most in wanted
    ]
