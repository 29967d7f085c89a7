"""One process a pipe: whoever runs it holds a lock, and the next one is told who."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from typing import TYPE_CHECKING, TextIO

from penstock.errors import PipeHeldError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def hold(folder: Path, pipe_name: str) -> Iterator[None]:
    """Hold the pipe while the context lasts. The lock dies with the process. Raises StateError, and PipeHeldError: it says who has it."""
    path = folder / f"{pipe_name}.lock"
    with _opened(path) as lock:
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


def _opened(path: Path) -> TextIO:
    try:
        return path.open("a+")
    except OSError as error:
        raise StateError(
            f"the lock {path} cannot be opened: {error.strerror}",
            hint="PENSTOCK_HOME must be writable for this user; another one, such as root, may have run the pipe before.",
        ) from None


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text())
    except (OSError, ValueError):
        return ""
    return f": process {who['pid']} on {who['host']}, since {who['since']}"
