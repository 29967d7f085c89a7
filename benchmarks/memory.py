"""Memory: one transaction of millions of rows flows through, and our process is looked at all the while.

The destination is the server, so that no engine is in our process; resident memory includes the interpreter and the libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.pipe import SERVER, Outcome, pipe
from benchmarks.report import Figures, Target, at_most, note, number, table
from benchmarks.stage import SETTING_UP, Sample, say
from benchmarks.workload import CHANGED, empty_changed, one_transaction, sums

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.stage import Stage

GROUP = "memory"
CASE = "one transaction"
MOST_MB = 300
MOST_GROWTH = 1.15  # of the last third's peak over the middle third's
POINTS = 12


def measure(stage: Stage) -> None:
    """Once: it is a property, not a speed."""
    with stage.noted(GROUP, CASE, SETTING_UP, 1):
        _measure(stage)


def _measure(stage: Stage) -> None:
    stream = one_transaction(stage.scale.memory_rows)
    empty_changed(stage.connection)
    with pipe(stage, "memory", CHANGED, stage.destination) as made:
        made.run_once()
        say(f"memory: making a transaction of {stream.changes:,} rows")
        stream.make(stage.connection)
        end, expected = stage.wal_end(), sums(stage.connection, CHANGED)

        def work() -> Sample:
            outcome = made.run_once(until=end)
            if (found := made.sums()) != expected:
                raise RuntimeError(f"the sums differ: {found.split()} instead of {expected.split()}")
            return Sample(GROUP, CASE, SERVER, 1, stream.changes, outcome.stream_seconds, _figures(outcome))

        stage.measure(GROUP, CASE, SERVER, 1, work)


def _figures(outcome: Outcome) -> dict[str, object]:
    opened = outcome.at("stream open")
    series = [
        (second - opened, size / 1e6) for second, size in outcome.memory if opened <= second <= outcome.confirmed_after
    ]
    third = max(1, len(series) // 3)
    middle, last = series[third : 2 * third] or series, series[-third:]
    return {
        "most_mb": round(max(size for _, size in outcome.memory) / 1e6),
        "at_start_mb": round(series[0][1]) if series else 0,
        "growth": round(max(size for _, size in last) / max(size for _, size in middle), 2) if series else 0.0,
        "series": _thinned(series),
    }


def _thinned(series: list[tuple[float, float]]) -> list[tuple[float, int]]:
    """The highest point of each of a dozen stretches: (seconds since the stream opened, MB)."""
    step = max(1, -(-len(series) // POINTS))
    highest = [max(series[start : start + step], key=lambda point: point[1]) for start in range(0, len(series), step)]
    return [(round(second, 1), round(size)) for second, size in highest]


def report(samples: Iterable[Sample]) -> str:
    """The table, and the series."""
    figures = Figures(samples, GROUP)
    lines, series = [], []
    for case in figures.cases:
        for each in figures.of(case, SERVER):
            shown = [number(each.more[name]) for name in ("at_start_mb", "most_mb")]
            lines.append((case, SERVER, number(each.amount), *shown, number(each.more["growth"], 2)))
            series.append(
                "Resident MB after seconds: "
                + ", ".join(f"{size} ({second:g} s)" for second, size in each.more["series"])
            )
    return "\n\n".join(
        [table(("case", "contender", "rows", "MB at start", "most MB", "last third / middle"), lines), *series]
    )


def targets(samples: Iterable[Sample]) -> list[Target]:
    """The project's targets for memory."""
    figures = Figures(samples, GROUP)
    growth = figures.more(CASE, SERVER, "growth")
    name = "memory, one transaction: flat"
    flat = Target(
        name, f"≤ {MOST_GROWTH:g} ×", number(growth, 2) + " ×", growth is not None and growth <= MOST_GROWTH, note(name)
    )
    return [
        at_most("memory, one transaction: most", MOST_MB, figures.more(CASE, SERVER, "most_mb"), "MB"),
        flat,
    ]
