"""Updates: what values that PostgreSQL does not send, and keys that change, cost beside plain updates of as many rows.

The clock is that of the streams; pg_recvlogical's shows what PostgreSQL itself takes for the same WAL.
"""

from __future__ import annotations

import contextlib
import statistics
from typing import TYPE_CHECKING

from benchmarks import limits
from benchmarks.pipe import EMBEDDED, SERVER, Pipe, pipe
from benchmarks.report import Figures, Target, at_least, number, table, times
from benchmarks.stage import SETTING_UP, Sample, say
from benchmarks.workload import UPDATES, Updates, sums

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.stage import Stage

GROUP = "updates"
TABLE = "updated"
LIMIT_SLOT = "limit"
PLAIN, TENTH = UPDATES[0].name, UPDATES[1].name


def measure(stage: Stage) -> None:
    """Every kind of update, as often as there are runs."""
    for run in range(1, stage.runs + 1):
        for updates in UPDATES:
            with stage.noted(GROUP, updates.name, SETTING_UP, run):
                _measure(stage, updates, run)


def _measure(stage: Stage, updates: Updates, run: int) -> None:
    rows, size = stage.scale.changes // 10, stage.scale.rows_per_transaction
    say(f"updates {updates.name}, run {run} of {stage.runs}: making {rows:,} rows, and updating each twice")
    updates.fill(stage.connection, rows)
    with contextlib.ExitStack() as ends:
        name = f"updates{UPDATES.index(updates)}_{run}"
        pipes = {
            EMBEDDED: ends.enter_context(pipe(stage, f"{name}_embedded", TABLE, None)),
            SERVER: ends.enter_context(pipe(stage, f"{name}_server", TABLE, stage.destination)),
        }
        for each in pipes.values():
            each.run_once()
        ends.callback(stage.drop_slot, LIMIT_SLOT)
        stage.make_slot(LIMIT_SLOT, TABLE)
        changes = updates.make(stage.connection, rows, size)
        stage.connection.execute("checkpoint")
        end, expected = stage.wal_end(), sums(stage.connection, TABLE)

        def drained() -> Sample:
            with stage.timed() as timing:
                limits.drain_slot(stage, LIMIT_SLOT, end)
            return Sample(GROUP, updates.name, limits.RECVLOGICAL, run, changes, timing.seconds, timing.as_dict())

        def followed(where: str, each: Pipe) -> Sample:
            outcome = each.run_once(until=end)
            if (found := each.sums()) != expected:
                raise RuntimeError(f"the sums differ: {found.split()} instead of {expected.split()}")
            more = {"stream_cpu": round(outcome.stream_cpu, 2), **outcome.ends.as_dict()}
            return Sample(GROUP, updates.name, where, run, changes, outcome.stream_seconds, more)

        stage.measure(GROUP, updates.name, limits.RECVLOGICAL, run, drained)
        for where, each in pipes.items():
            stage.measure(GROUP, updates.name, where, run, lambda: followed(where, each))  # noqa: B023  (called at once)


# The report

HEADS = (
    "updates",
    "contender",
    "changes/s",
    "seconds",
    "× plain",
    "× recvlogical",
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
            times(_beside_plain(figures, case, contender)),
            times(figures.ratio(case, contender, limits.RECVLOGICAL)),
            number(figures.more(case, contender, "stream_cpu") if contender == SERVER else None, 2),
            number(figures.more(case, contender, "postgres_cpu"), 1),
            number(figures.more(case, contender, "clickhouse_cpu"), 1),
        )

    return table(HEADS, [line(case, contender) for case in figures.cases for contender in figures.contenders(case)])


def targets(samples: Iterable[Sample]) -> list[Target]:
    """A tenth of partial rows costs half the speed at most."""
    figures = Figures(samples, GROUP)
    return [
        at_least(f"updates {TENTH}, {where}: × {PLAIN}", 0.5, _beside_plain(figures, TENTH, where))
        for where in (EMBEDDED, SERVER)
        if figures.tried
    ]


def _beside_plain(figures: Figures, case: str, contender: str) -> float | None:
    """How many times as fast as plain updates, run by run."""
    plain = {each.run: each.amount / each.seconds for each in figures.of(PLAIN, contender)}
    ratios = [each.amount / each.seconds / plain[each.run] for each in figures.of(case, contender) if each.run in plain]
    return statistics.median(ratios) if ratios else None
