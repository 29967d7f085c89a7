"""What came out: tables for people, JSON for programs, and each target of the project with what was measured.

Ratios are taken within a run, where both contenders met the same machine and data; the median of the runs is shown.
"""

from __future__ import annotations

import statistics
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.stage import Sample

NOTES = Path(__file__).with_name("notes.toml")


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that the project promises, and what was measured; ``note`` is what notes.toml says of it."""

    name: str
    wanted: str
    measured: str
    reached: bool
    note: str = ""


class Figures:
    """The samples of one group, case by case and contender by contender."""

    def __init__(self, samples: Iterable[Sample], group: str) -> None:
        self.samples = [sample for sample in samples if sample.group == group]

    @property
    def tried(self) -> list[str]:
        """Every case, also those without any figure."""
        return list(dict.fromkeys(sample.case for sample in self.samples))

    @property
    def cases(self) -> list[str]:
        """Those with a figure, in the order in which they were measured."""
        return list(dict.fromkeys(sample.case for sample in self.samples if not sample.error))

    def contenders(self, case: str) -> list[str]:
        """Likewise."""
        return list(dict.fromkeys(each.contender for each in self.samples if each.case == case and not each.error))

    def of(self, case: str, contender: str) -> list[Sample]:
        """The samples that have a figure."""
        return [each for each in self.samples if each.case == case and each.contender == contender and not each.error]

    def median(self, case: str, contender: str, value: Callable[[Sample], float]) -> float | None:
        """The median over the runs; None without a figure."""
        values = [value(sample) for sample in self.of(case, contender)]
        return statistics.median(values) if values else None

    def rate(self, case: str, contender: str) -> float | None:
        """Rows or changes a second."""
        return self.median(case, contender, lambda each: each.amount / each.seconds)

    def ratio(self, case: str, contender: str, other: str) -> float | None:
        """How many times as fast as ``other``, run by run."""
        others = {each.run: each.amount / each.seconds for each in self.of(case, other)}
        ratios = [
            each.amount / each.seconds / others[each.run] for each in self.of(case, contender) if each.run in others
        ]
        return statistics.median(ratios) if ratios else None

    def more(self, case: str, contender: str, name: str) -> float | None:
        """The median of one of the further figures; None where there is none."""
        values = [each.more[name] for each in self.of(case, contender) if name in each.more]
        return statistics.median(values) if values else None


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that reads well in a terminal and is Markdown too; the first two columns are words, the others figures."""
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]

    def shown(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = (
        "| "
        + " | ".join("-" * width if index < 2 else "-" * (width - 1) + ":" for index, width in enumerate(widths))
        + " |"
    )
    return "\n".join([shown(heads), rule, *(shown(line) for line in lines[1:])])


def number(value: float | None, places: int = 0) -> str:
    """A figure, or a dash."""
    return "–" if value is None else f"{value:,.{places}f}"


def times(value: float | None) -> str:
    """A ratio, or a dash."""
    return "–" if value is None else f"{value:.2f} ×"


def at_least(name: str, wanted: float, value: float | None) -> Target:
    """A ratio that must not be lower."""
    return Target(name, f"≥ {wanted:g} ×", times(value), value is not None and value >= wanted, note(name))


def at_most(name: str, wanted: float, value: float | None, unit: str) -> Target:
    """A figure that must not be higher."""
    places = 2 if unit == "s" else 0
    return Target(
        name,
        f"≤ {wanted:g} {unit}",
        f"{number(value, places)} {unit}",
        value is not None and value <= wanted,
        note(name),
    )


def note(name: str) -> str:
    """What notes.toml says of a target: why it is missed, and what the bottleneck is. The first pattern that fits."""
    with NOTES.open("rb") as file:
        notes: dict[str, str] = tomllib.load(file)["missed"]
    return next((text for pattern, text in notes.items() if fnmatchcase(name, pattern)), "")


def targets_table(targets: Sequence[Target]) -> str:
    """Every target, and a sentence for each that is missed."""
    rows = [(each.name, each.wanted, each.measured, "reached" if each.reached else "MISSED") for each in targets]
    missed: dict[str, list[str]] = {}
    for each in targets:
        if not each.reached:
            missed.setdefault(each.note or "no sentence yet: add one to benchmarks/notes.toml", []).append(each.name)
    lines = [f"* {'; '.join(names)}\n  → {text}" for text, names in missed.items()]
    return "\n".join([table(("target", "wanted", "measured", ""), rows), *(["", *lines] if lines else [])])


def failures(samples: Iterable[Sample]) -> list[str]:
    """What could not be measured, and why."""
    return [
        f"* {each.group} {each.case}, run {each.run}, {each.contender}: {each.error}" for each in samples if each.error
    ]


def as_json(samples: Iterable[Sample], targets: Iterable[Target], about: dict[str, Any]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        **about,
        "samples": [
            {
                "group": each.group,
                "case": each.case,
                "contender": each.contender,
                "run": each.run,
                "amount": each.amount,
                "seconds": round(each.seconds, 4),
                "per_second": round(each.amount / each.seconds, 1) if each.seconds else None,
                **each.more,
                **({"error": each.error} if each.error else {}),
            }
            for each in samples
        ],
        "targets": [
            {
                "name": each.name,
                "wanted": each.wanted,
                "measured": each.measured,
                "reached": each.reached,
                "note": each.note,
            }
            for each in targets
        ],
    }
