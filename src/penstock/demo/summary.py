"""What the demo has shown, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from penstock.observe.words import milliseconds

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.demo.equality import Comparison
    from penstock.demo.workload import Counts
    from penstock.observe.status import Latencies, PipeStatus


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a demo. ``seconds`` is how long the pipe ran."""

    comparisons: tuple[Comparison, ...]
    shopping: Counts
    status: PipeStatus
    seen: Latencies
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether every table was there and the same on both sides."""
        return bool(self.comparisons) and all(each.equal for each in self.comparisons)

    def show(self, console: Console) -> None:
        """Print it."""
        shopping, copied = self.shopping, sum(table.rows_copied for table in self.status.tables)
        lines = [
            (
                f"In {self.seconds:.0f} s the pipe copied {copied:,} rows and followed {shopping.transactions:,} transactions:"
                f" {shopping.inserted:,} rows inserted, {shopping.updated:,} updated, {shopping.rekeyed:,} with a new key,"
                f" {shopping.deleted:,} deleted; {shopping.rolled_back:,} transactions were rolled back and never arrived."
            ),
        ]
        if len(self.seen):
            lines.append(
                f"An order was found in ClickHouse {milliseconds(self.seen.p50)} after its commit"
                f" (median of {len(self.seen)}; p99 {milliseconds(self.seen.p99)})."
            )
        console.print()
        for line in lines:
            console.print(line, highlight=False, soft_wrap=not console.is_terminal)
        for each in self.comparisons:
            mark = ("✓ ", "green") if each.equal else ("✗ ", "bold red")
            told = f"{each.rows:,} rows, every value equal" if each.equal else each.difference
            console.print(Text.assemble(mark, (each.table, "bold"), "  ", told), soft_wrap=not console.is_terminal)
        verdict = ("Both sides are equal.", "bold green") if self.equal else ("The sides differ.", "bold red")
        console.print(Text.assemble(verdict))

    def to_json(self) -> str:
        """One line."""
        return json.dumps(
            {
                "equal": self.equal,
                "seconds": round(self.seconds, 1),
                "tables": [
                    {"table": each.table, "rows": each.rows, "difference": each.difference} for each in self.comparisons
                ],
                "workload": asdict(self.shopping),
                "rows_copied": sum(table.rows_copied for table in self.status.tables),
                "changes": self.status.changes,
                "commit_to_found_ms": {"p50": self.seen.p50, "p99": self.seen.p99, "samples": len(self.seen)},
            },
            ensure_ascii=False,
        )
