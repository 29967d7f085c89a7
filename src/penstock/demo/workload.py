"""People shopping (``shopper.py``), in a process of their own so that they cost the pipe nothing: start, count, stop."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from penstock.errors import SourceError

if TYPE_CHECKING:
    from types import TracebackType

    from penstock.demo.source import Source

STOP_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Counts:
    """What the workload has committed, in rows; ``rolled_back`` in transactions."""

    transactions: int = 0
    inserted: int = 0
    updated: int = 0
    rekeyed: int = 0  # rows whose key changed
    deleted: int = 0
    rolled_back: int = 0

    @property
    def changes(self) -> int:
        """Rows of all kinds."""
        return self.inserted + self.updated + self.rekeyed + self.deleted


class Workload:
    """The running workload. As a context: started, and stopped at the end."""

    def __init__(
        self, source: Source, *, transactions_per_second: float = 150.0, workers: int = 4, seed: int = 1
    ) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "penstock.demo.shopper", source.dsn, "--password-file", str(source.password_file),
                "--rate", str(transactions_per_second), "--workers", str(workers), "--seed", str(seed),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._counts = Counts()
        self._reader = threading.Thread(target=self._read, name="workload", daemon=True)
        self._reader.start()

    @property
    def counts(self) -> Counts:
        """What has been committed, a fraction of a second ago."""
        return self._counts

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self) -> Counts:
        """End it, every transaction finished; returns the final counts. A second call returns the same."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join()
        if code:
            raise SourceError("the demo's workload ended early", hint="Its reason stands above; run the demo again.")
        return self._counts

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        with self._process.stdout as lines:
            for line in lines:
                self._counts = Counts(**json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self._process.kill()
            self._process.wait()
            self._reader.join()
