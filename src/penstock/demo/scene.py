"""What the demo shows: on a terminal the pipe's live view with the shop's figures below it, otherwise a plain line now and then."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.text import Text

from penstock.demo.analytics import panel
from penstock.observe.live import LiveView
from penstock.observe.words import count, duration, milliseconds, rate

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType

    from penstock.demo.analytics import Answer
    from penstock.demo.workload import Counts
    from penstock.observe.status import Latencies, PipeStatus

LINE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything there is to see at one time."""

    status: PipeStatus
    shopping: Counts
    answers: tuple[Answer, ...]
    seen: Latencies  # by the probe
    seconds_left: float | None = None


class Scene:
    """Draws moments. A context: the live view begins and ends with it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._view = LiveView(console)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last_line = float("-inf")

    @property
    def console(self) -> Console:
        """Where it draws."""
        return self._console

    def draw(self, moment: Moment) -> None:
        """Show it."""
        if self._live:
            self._live.update(self.render(moment), refresh=True)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(_line(moment))

    def say(self, line: str) -> None:
        """Print a line as it is."""
        self._console.print(line, soft_wrap=True, highlight=False)

    def render(self, moment: Moment) -> RenderableType:
        """The live view, the answers to the shop's questions, and what the probe sees."""
        view, footer = self._view.render(moment.status), _footer(moment)
        taken = sum(len(self._console.render_lines(each)) for each in (view, footer))
        lines = self._console.height - taken - 1
        return Group(view, panel(moment.answers, width=self._console.width, lines=lines), footer)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()


def _footer(moment: Moment) -> Text:
    shopping = moment.shopping
    text = Text.assemble(
        (" shop  ", "dim"),
        f"{count(shopping.transactions)} transactions, {count(shopping.inserted)} inserts, {count(shopping.updated)} updates, "
        f"{count(shopping.rekeyed)} new keys, {count(shopping.deleted)} deletes\n",
        (" seen  ", "dim"),
    )
    if len(moment.seen):
        text.append(f"an order is found {milliseconds(moment.seen.p50)} after its commit")
        text.append(f" (median of {len(moment.seen)}, p99 {milliseconds(moment.seen.p99)})")
    else:
        text.append("the tables are being copied", style="dim")
    if moment.seconds_left is not None:
        text.append(f"\n {max(0, moment.seconds_left):.0f} s left, Ctrl-C ends it now", style="dim")
    return text


def _line(moment: Moment) -> str:
    status = moment.status
    states: dict[str, int] = {}
    for table in status.tables:
        states[table.state] = states.get(table.state, 0) + 1
    parts = [
        ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in states.items()) or status.state,
        f"{count(sum(table.rows_copied for table in status.tables))} rows copied",
        f"{count(status.changes)} changes ({rate(status.changes_per_second)}/s)",
        f"{duration(status.lag_seconds)} behind",
    ]
    if len(moment.seen):
        parts.append(f"found after {milliseconds(moment.seen.p50)} (p99 {milliseconds(moment.seen.p99)})")
    trouble = status.last_error or next((table.last_error for table in status.tables if table.last_error), "")
    return "  ".join([*parts, *([trouble] if trouble else [])])
