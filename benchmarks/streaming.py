"""Streams: the same WAL, read by each contender from a slot that was made before the changes.

All contenders have copied the empty table and stand still while the changes are made. Penstock's clock runs from the log's
``stream open`` until its slot is confirmed past the last change; pg_recvlogical's is the process's; the peer's runs from the
moment it is let go until its sums are equal.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import limits
from benchmarks.peer import CONTENDER as PEER
from benchmarks.peer import Peer, followed
from benchmarks.pipe import EMBEDDED, SERVER, Pipe, pipe
from benchmarks.report import Figures, Target, at_least, at_most, number, table, times
from benchmarks.stage import SETTING_UP, Sample, say
from benchmarks.workload import CHANGED, Stream, empty_changed, streams, sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.stage import Stage

GROUP = "stream"
LIMIT_SLOT = "limit"
CPU_SECONDS_PER_MILLION = 2.5


def measure(stage: Stage) -> None:
    """Every stream, as often as there are runs."""
    for stream in streams(stage.scale):
        for run in range(1, stage.runs + 1):
            with stage.noted(GROUP, stream.name, SETTING_UP, run):
                _measure(stage, stream, run)


def _measure(stage: Stage, stream: Stream, run: int) -> None:
    empty_changed(stage.connection)
    with contextlib.ExitStack() as ends:
        peer = ends.enter_context(followed(stage, CHANGED))
        pipes = [ends.enter_context(_copied(stage, f"{stream.name}{run}", where)) for where in (EMBEDDED, SERVER)]
        ends.callback(stage.drop_slot, LIMIT_SLOT)
        stage.make_slot(LIMIT_SLOT, CHANGED)
        say(f"stream {stream.name}, run {run} of {stage.runs}: making {stream.changes:,} changes")
        stream.make(stage.connection)
        stage.connection.execute("checkpoint")
        end, expected = stage.wal_end(), sums(stage.connection, CHANGED)
        stage.measure(GROUP, stream.name, limits.RECVLOGICAL, run, lambda: _recvlogical(stage, stream, run, end))
        for where, each in zip((EMBEDDED, SERVER), pipes, strict=True):
            work = partial(_penstock, each, stream, run, where=where, end=end, expected=expected)
            stage.measure(GROUP, stream.name, where, run, work)
        stage.measure(GROUP, stream.name, PEER, run, lambda: _peer(stage, peer, stream, run, expected))


@contextlib.contextmanager
def _copied(stage: Stage, name: str, where: str) -> Iterator[Pipe]:
    """A pipe that has copied the empty table."""
    server = stage.destination if where == SERVER else None
    with pipe(stage, f"{name}_{'server' if server else 'embedded'}", CHANGED, server) as made:
        made.run_once()
        yield made


def _recvlogical(stage: Stage, stream: Stream, run: int, end: str) -> Sample:
    with stage.timed() as timing:
        limits.drain_slot(stage, LIMIT_SLOT, end)
    return Sample(GROUP, stream.name, limits.RECVLOGICAL, run, stream.changes, timing.seconds, timing.as_dict())


def _penstock(each: Pipe, stream: Stream, run: int, *, where: str, end: str, expected: str) -> Sample:
    outcome = each.run_once(until=end)
    found = each.sums()
    if found != expected:
        raise RuntimeError(f"the sums differ: {found.split()} instead of {expected.split()}")
    more = {
        "process_seconds": round(outcome.process_seconds, 3),
        "process_cpu": round(outcome.process_cpu, 2),
        "stream_cpu": round(outcome.stream_cpu, 2),
        "most_memory_mb": round(max((size for _, size in outcome.memory), default=0) / 1e6),
        **outcome.ends.as_dict(),
    }
    return Sample(GROUP, stream.name, where, run, stream.changes, outcome.stream_seconds, more)


def _peer(stage: Stage, peer: Peer, stream: Stream, run: int, expected: str) -> Sample:
    with stage.timed(stage.peer) as timing, stage.awake(stage.peer):
        peer.wait_sums(stream.last_id, expected)
    return Sample(GROUP, stream.name, PEER, run, stream.changes, timing.seconds, timing.as_dict())


# The report

HEADS = (
    "stream",
    "contender",
    "changes/s",
    "seconds",
    "process s",
    "× recvlogical",
    "× peer",
    "our CPU s/M",
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
            times(figures.ratio(case, contender, limits.RECVLOGICAL)),
            times(figures.ratio(case, contender, PEER)),
            number(_cpu(figures, case, contender), 2),
            number(figures.more(case, contender, "postgres_cpu"), 1),
            number(figures.more(case, contender, "clickhouse_cpu"), 1),
        )

    return table(HEADS, [line(case, contender) for case in figures.cases for contender in figures.contenders(case)])


def targets(samples: Iterable[Sample]) -> list[Target]:
    """The project's targets for streams."""
    figures = Figures(samples, GROUP)
    found = []
    for case in figures.tried:
        for where in (EMBEDDED, SERVER):
            found += [
                at_least(
                    f"stream {case}, {where}: × pg_recvlogical", 1.0, figures.ratio(case, where, limits.RECVLOGICAL)
                ),
                at_least(f"stream {case}, {where}: × {PEER}", 3.0, figures.ratio(case, where, PEER)),
            ]
        found.append(
            at_most(
                f"stream {case}, {SERVER}: CPU a million changes",
                CPU_SECONDS_PER_MILLION,
                _cpu(figures, case, SERVER),
                "s",
            )
        )
    return found


def _cpu(figures: Figures, case: str, contender: str) -> float | None:
    """Our own CPU seconds a million changes; only where ClickHouse is not in our process."""
    if contender != SERVER:
        return None
    return figures.median(case, contender, lambda each: each.more["stream_cpu"] / each.amount * 1e6)
