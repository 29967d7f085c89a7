"""penstock run: one pipe in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import structlog
from rich.console import Console
from rich.live import Live

from penstock.cli.output import FAILED, print_json
from penstock.control.hold import hold
from penstock.control.queries import answer
from penstock.control.store import StateStore, home
from penstock.observe.live import LiveView
from penstock.observe.metrics import serve
from penstock.observe.status import PipeStatus, as_json
from penstock.pipeline.run import Run

if TYPE_CHECKING:
    from penstock.config import Pipe

log = structlog.get_logger()

END_SECONDS = 10.0  # after which a drain that hangs is given up; what was not written is read again
VIEW_SECONDS = 0.25
LINE_SECONDS = 10.0
M_MMAP_THRESHOLD = -3  # mallopt(3)
LARGE_BYTES = 8 << 20


def run_pipe(pipe: Pipe, *, once: bool, as_json_lines: bool, metrics: str = "") -> int:
    """Run ``pipe`` until it is told to stop, or, with ``once``, has caught up. The exit code: 1 when a table was set aside.

    ``metrics``: where to serve them; empty: nowhere.
    """
    _give_large_blocks_back()
    folder = home()
    with hold(folder, pipe.name):
        store = StateStore(folder)
        try:
            work = Run(pipe, store, folder / f"{pipe.name}.scratch")
            if metrics:
                log.info("metrics served", at=serve(metrics, work.status))
            status = asyncio.run(_run(work, once=once, quiet=as_json_lines))
        finally:
            store.close()
    if as_json_lines:
        print_json(as_json(status))
    return FAILED if status.failed else 0


async def _run(run: Run, *, once: bool, quiet: bool) -> PipeStatus:
    _stop_on_signals(run)
    shown = asyncio.create_task(_show(run, quiet=quiet), name="show")
    try:
        async with answer(home(), run.pipe.name, run):
            await run.run(once=once)
    finally:
        shown.cancel()
        await asyncio.gather(shown, return_exceptions=True)
    return run.status()


def _give_large_blocks_back() -> None:
    """Freed blocks of this size go back to the system at once. By itself glibc keeps ever larger ones: twice the memory at 20 MB values."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def _stop_on_signals(run: Run) -> None:
    """The first signal ends the pipe in order, within END_SECONDS; the second one at once."""
    loop = asyncio.get_running_loop()

    def first(number: int) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, lambda *_: os._exit(128 + number))
        guard = threading.Timer(END_SECONDS - 0.5, _give_up)
        guard.daemon = True
        guard.start()
        run.stop()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, first, each)


def _give_up() -> None:
    """From a thread of its own, whatever hangs."""
    why = f"error: what was read could not be written within {END_SECONDS:.0f} s"
    with contextlib.suppress(OSError):
        os.write(2, f"{why}\n next: Nothing is lost: it is read again at the next start.\n".encode())
    os._exit(FAILED)


async def _show(run: Run, *, quiet: bool) -> None:
    console = Console(stderr=True)
    if console.is_terminal and not quiet:
        view = LiveView(console)
        with Live(view.render(run.status()), console=console, auto_refresh=False, transient=False) as live:
            try:
                while True:
                    await asyncio.sleep(VIEW_SECONDS)
                    live.update(view.render(run.status()), refresh=True)
            finally:
                live.update(view.render(run.status()), refresh=True)
    while True:
        await asyncio.sleep(LINE_SECONDS)
        _log_line(run.status())


def _log_line(status: PipeStatus) -> None:
    states: dict[str, int] = {}
    for table in status.tables:
        states[table.state] = states.get(table.state, 0) + 1
    log.info(
        "status",
        pipe=status.name,
        state=status.state,
        **states,
        changes=status.changes,
        changes_per_second=round(status.changes_per_second),
        lag_bytes=status.lag_bytes,
        lag_seconds=round(status.lag_seconds, 3),
        position=str(status.position),
    )
    sys.stderr.flush()
