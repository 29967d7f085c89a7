"""One process a pipe: whoever runs it holds a lock, and the next one is told who."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from typing import TYPE_CHECKING

from penstock.errors import PipeHeldError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def hold(folder: Path, pipe_name: str) -> Iterator[None]:
    """Hold the pipe while the context lasts. The lock dies with the process. Raises PipeHeldError, which says who holds it."""
    path = folder / f"{pipe_name}.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipeHeldError(
                f'the pipe "{pipe_name}" runs already{_holder(path)}',
                hint="Stop that process first; or look at its data with: penstock query.",
            ) from None
        lock.truncate(0)
        lock.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}))
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text())
    except (OSError, ValueError):
        return ""
    return f": process {who['pid']} on {who['host']}, since {who['since']}"
