"""The decoders without any server (``benchmarks.decode``), as a part of the whole report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import decode
from benchmarks.report import Figures, Target, note, number, table
from benchmarks.stage import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.stage import Stage

GROUP = "decode"
NATIVE = "native"
WANTED_ROWS_PER_SECOND = 2_000_000


def measure(stage: Stage) -> None:
    """Every case; the medians of the runs are taken there."""
    for case in decode.CASES:
        for result in decode.measure(case, stage.runs):
            more = {"megabytes_per_second": round(result.megabytes_per_second, 1), "times_loop": round(result.ratio, 2)}
            stage.keep(Sample(GROUP, case.name, result.contender, 1, 1_000_000, 1e6 / result.rows_per_second, more))


def report(samples: Iterable[Sample]) -> str:
    """The table."""
    figures = Figures(samples, GROUP)

    def line(case: str, contender: str) -> tuple[str, ...]:
        more = (("megabytes_per_second", 0), ("times_loop", 1))
        shown = [number(figures.more(case, contender, name), places) for name, places in more]
        return case, contender, number(figures.rate(case, contender)), *shown

    lines = [line(case, contender) for case in figures.cases for contender in figures.contenders(case)]
    return table(("case", "contender", "rows/s", "MB/s", "× loop"), lines)


def targets(samples: Iterable[Sample]) -> list[Target]:
    """The project's target for the decoder."""
    figures = Figures(samples, GROUP)
    found = []
    for case in ("frames", "COPY"):
        name, rate = f"decode, {case}", figures.rate(case, NATIVE)
        reached = rate is not None and rate >= WANTED_ROWS_PER_SECOND
        found.append(
            Target(name, f"≥ {WANTED_ROWS_PER_SECOND:,} rows/s", f"{number(rate)} rows/s", reached, note(name))
        )
    return found
