"""A lane's figures as people see them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.batch import UNFIT
from penstock.observe.status import PipeStatus, TableStatus
from penstock.pipeline.lifecycle import State

if TYPE_CHECKING:
    from collections import Counter

    from penstock.pipeline.checkpoint import Store, TableRecord
    from penstock.pipeline.lane import Lane

_SHOWN = 3  # reasons, before the rest is only counted


def at_rest(store: Store, name: str) -> PipeStatus | None:
    """The pipe as it was left behind; None before its first run."""
    record = store.pipe(name)
    if record is None:
        return None
    tables = tuple(_recorded(each) for each in store.tables(name))
    return PipeStatus(name, "stopped", tables, record.position, record.position, record.position)


def _recorded(record: TableRecord) -> TableStatus:
    return TableStatus(
        record.full_name,
        "left_out" if record.left_out else record.state.value,
        target=record.target,
        rows_copied=record.rows_copied,
        bytes_copied=record.bytes_copied,
        note=record.hint if record.state is State.FAILED or record.left_out else _unfit(record.counters),
        last_error=record.reason,
        counters=dict(record.counters),
    )


def table_status(lane: Lane, *, lag_bytes: int, reading: int = 0) -> TableStatus:
    """The table as it is at the moment. ``reading`` is the commit time of rows that are decoded and not handed over yet, µs; 0 for none."""
    oldest = lane.oldest_commit or reading
    now = time.monotonic()
    record = lane.record
    copying = record.state is State.COPYING
    elapsed = now - lane.copy_began
    left = lane.rows_estimated - record.rows_copied
    return replace(
        _recorded(record),
        rows_estimated=lane.rows_estimated,
        seconds_left=max(0.0, left * elapsed / record.rows_copied) if copying and record.rows_copied else None,
        changes=lane.changes,
        changes_per_second=lane.rate.per_second(now),
        lag_bytes=lag_bytes,
        lag_seconds=max(0.0, time.time() - oldest / 1e6) if oldest else 0.0,
        last_error=record.reason or lane.trouble,
    )


def _unfit(counters: Counter[str]) -> str:
    """How many values did not fit; the counters tell of which columns, and why."""
    found = {name.removeprefix(UNFIT): count for name, count in dict(counters).items() if name.startswith(UNFIT)}
    if not any(found.values()):
        return ""
    worst = sorted(found, key=lambda name: -found[name])
    more = f", and {len(worst) - _SHOWN} more" if len(worst) > _SHOWN else ""
    listed = ", ".join(f"{name} ({found[name]})" for name in worst[:_SHOWN])
    return f"{sum(found.values())} values did not fit: {listed}{more}"
