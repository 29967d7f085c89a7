"""How much is measured: the sizes the targets are about, and small ones that only prove that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Rows of each table to copy, changes of each stream, probes of the latencies."""

    name: str
    narrow_rows: int
    wide_rows: int
    text_rows: int
    changes: int
    memory_rows: int  # of one transaction
    probes: int  # lone rows
    load_seconds: float
    load_rows_per_second: int = 5000
    rows_per_transaction: int = 1000


FULL = Scale("full", 1_000_000, 200_000, 100_000, 1_000_000, 5_000_000, 60, 20.0)
QUICK = Scale("quick", 20_000, 5_000, 2_000, 20_000, 200_000, 8, 3.0)
