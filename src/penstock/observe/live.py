"""A pipe's status on a terminal: a header, a line a table, and below them what went wrong. Made of Rich, drawn by the caller."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock.language import spoken
from penstock.observe.words import count, duration, milliseconds, rate, shown, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from penstock.observe.status import PipeStatus, TableStatus

STYLES = {
    "streaming": "green",
    "running": "green",
    "catching_up": "cyan",
    "copying": "yellow",
    "failed": "bold red",
}
"""Colours of states; the others are dim."""

_SIGNS = {"streaming": "●", "running": "●", "catching_up": "◐", "copying": "◔", "failed": "✗"}
_ORDER = ("failed", "copying", "catching_up")  # what people look for stands first when not all tables fit
_SPARKS = "▁▂▃▄▅▆▇█"
_WIDE = 104  # columns from which on there is room for words
_AROUND = 14  # lines of the view that are no tables


class LiveView:
    """Draws statuses. It remembers the last rates, for a small graph of the throughput."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._rates: deque[float] = deque(maxlen=30 if console.width >= _WIDE else 20)
        self._sampled = float("-inf")

    def render(self, status: PipeStatus) -> RenderableType:
        """What to show now. Fits the console's width from 80 columns on, and its height."""
        self._sample(status)
        troubles = _troubles(status)
        body: list[RenderableType] = [self._header(status), Text(), self._tables(status)]
        if troubles:
            body += [Text(), *troubles]
        title = Text.assemble(("penstock ", "bold"), (status.name, "bold cyan"))
        return Panel(
            Group(*body), title=title, title_align="left", border_style="blue", box=box.ROUNDED, padding=(0, 1)
        )

    def _sample(self, status: PipeStatus) -> None:
        now = self._clock()
        if now - self._sampled >= 0.5:
            self._rates.append(status.changes_per_second)
            self._sampled = now

    def _header(self, status: PipeStatus) -> RenderableType:
        left = Text.assemble(_state(status.state), "  ", (shown(spoken(status.note)), "dim"))
        speed = Text.assemble((rate(status.changes_per_second), "bold"), " changes/s ", (_spark(self._rates), "blue"))
        where = Text.assemble(("durable ", "dim"), str(status.position), ("  behind ", "dim"), size(status.lag_bytes))
        if status.retained_bytes is not None:
            where.append_text(Text.assemble(("  slot keeps ", "dim"), size(status.retained_bytes)))
        latency = Text.assemble(
            ("commit → readable  p50 ", "dim"),
            (milliseconds(status.latency_p50_ms), "bold"),
            ("  p99 ", "dim"),
            (milliseconds(status.latency_p99_ms), "bold"),
        )
        grid = Table.grid(expand=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(justify="right", no_wrap=True)
        grid.add_row(left, speed)
        if self._wide:
            grid.add_row(where, latency)
            return grid
        return Group(grid, where, latency)

    @property
    def _wide(self) -> bool:
        return self._console.width >= _WIDE

    def _tables(self, status: PipeStatus) -> RenderableType:
        columns = _columns(status.tables, wide=self._wide)
        grid = Table(
            box=None, expand=True, padding=(0, 2 if self._wide else 1, 0, 0), header_style="dim", pad_edge=False
        )
        for column in columns:
            grid.add_column(
                column.title, ratio=column.ratio, justify=column.justify, min_width=column.width, no_wrap=True
            )
        shown = _most_telling(status.tables, max(3, self._console.height - _AROUND))
        for table in shown:
            grid.add_row(*(column.cell(table) for column in columns))
        if len(shown) == len(status.tables):
            return grid
        return Group(grid, Text(f"… and {len(status.tables) - len(shown)} more tables", style="dim"))


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    cell: Callable[[TableStatus], RenderableType]
    width: int = 0
    ratio: int | None = None
    justify: Literal["left", "right"] = "right"


def _columns(tables: tuple[TableStatus, ...], *, wide: bool) -> list[_Column]:
    """What there is room for. While nothing is copied, the columns of the copy give theirs back."""
    copying = any(table.state == "copying" for table in tables)
    schemas = {table.full_name.partition(".")[0] for table in tables}
    short = not wide and len(schemas) == 1
    columns = [
        _Column("table", lambda table: _name(table, short=short), ratio=1, justify="left"),
        _Column("state", lambda table: _state(table.state), 13, justify="left"),
        _Column("rows copied", _rows if wide or copying else _copied),
    ]
    if copying:
        room = 24 if wide else 6
        columns += [_Column("", lambda table: _bar(table, room), room, justify="left"), _Column("left", _left, 5)]
    if wide or not copying:
        columns.append(_Column("changes", lambda table: count(table.changes)))
    return [
        *columns,
        _Column("/s", lambda table: rate(table.changes_per_second), 5),
        _Column("lag", _lag_time, 6),
        _Column("", _lag_size, 7),
    ]


def _name(table: TableStatus, *, short: bool) -> Text:
    name = table.full_name.partition(".")[2] if short else table.full_name
    return Text(shown(name), overflow="ellipsis", no_wrap=True)


def _copied(table: TableStatus) -> str:
    return count(table.rows_copied)


def _rows(table: TableStatus) -> str:
    if table.state != "copying" or not table.rows_estimated:
        return count(table.rows_copied)
    return f"{count(table.rows_copied)}/{count(max(table.rows_estimated, table.rows_copied))}"


def _left(table: TableStatus) -> str:
    return duration(table.seconds_left) if table.state == "copying" and table.seconds_left is not None else ""


def _bar(table: TableStatus, width: int) -> RenderableType:
    """Of the estimate, which statistics made: a table that holds more is nearly done, not over it."""
    if table.state != "copying":
        return ""
    share = table.rows_copied / table.rows_estimated if table.rows_estimated else 0.0
    return ProgressBar(
        total=1.0, completed=min(share, 0.99), width=width, complete_style="yellow", pulse=not table.rows_estimated
    )


def _lag_time(table: TableStatus) -> Text:
    return Text(duration(table.lag_seconds) if _behind(table) else "–", style=_lag_style(table.lag_seconds))


def _lag_size(table: TableStatus) -> Text:
    return Text(size(table.lag_bytes) if _behind(table) else "–", style=_lag_style(table.lag_seconds))


def _behind(table: TableStatus) -> bool:
    return table.lag_seconds >= 0.05 or table.lag_bytes > 0


def _lag_style(seconds: float) -> str:
    return "" if seconds < 5 else "yellow" if seconds < 60 else "bold red"


def _state(state: str) -> Text:
    return Text(f"{_SIGNS.get(state, '○')} {state.replace('_', ' ')}", style=STYLES.get(state, "dim"))


def _troubles(status: PipeStatus) -> list[Text]:
    lines = []
    if status.last_error:
        lines.append(Text.assemble(("✗ ", "bold red"), shown(spoken(status.last_error))))
    for table in status.tables:
        if table.last_error:
            lines.append(
                Text.assemble(
                    ("✗ ", "bold red"), (shown(table.full_name), "bold"), "  ", shown(spoken(table.last_error))
                )
            )
            if table.note:
                lines.append(Text.assemble("  ", ("next: ", "bold"), (shown(spoken(table.note)), "dim")))
        elif table.note:
            lines.append(
                Text.assemble(("· ", "dim"), (shown(table.full_name), "bold"), "  ", (shown(spoken(table.note)), "dim"))
            )
    lines += [Text.assemble(("! ", "yellow"), shown(warning)) for warning in status.warnings]
    return lines


def _most_telling(tables: tuple[TableStatus, ...], room: int) -> tuple[TableStatus, ...]:
    """As many tables as there is room for, in their own order: first those that failed or are on their way, then the busiest."""
    if len(tables) <= room:
        return tables

    def weight(table: TableStatus) -> tuple[int, float]:
        return (_ORDER.index(table.state) if table.state in _ORDER else len(_ORDER), -table.changes_per_second)

    chosen = {table.full_name for table in sorted(tables, key=weight)[:room]}
    return tuple(table for table in tables if table.full_name in chosen)


def _spark(rates: deque[float]) -> str:
    highest = max(rates, default=0.0)
    if highest <= 0:
        return ""
    return "".join(_SPARKS[min(7, int(each / highest * 7.999))] for each in rates)
