"""penstock status: how a status looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from penstock.cli.output import DONE, FAILED, print_json
from penstock.observe.live import LiveView
from penstock.observe.status import as_json

if TYPE_CHECKING:
    from penstock.observe.status import PipeStatus

EVERY_TABLE = 100_000  # lines


def show(status: PipeStatus, *, as_json_wanted: bool) -> int:
    """Print it. The exit code: 1 when a table is set aside."""
    if as_json_wanted:
        print_json(as_json(status))
    else:
        console = Console(height=EVERY_TABLE)
        console.print(LiveView(console).render(status))
    return FAILED if status.failed else DONE
