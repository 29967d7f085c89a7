"""The one description of a pipe as people see it: the live view, ``--json``, the log and later the API all show these values.

Nothing here reads a clock: whoever counts passes the time in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from penstock.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Mapping


NOWHERE = Lsn(0)


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table. ``state`` is a word of the table's lifecycle: waiting, copying, catching_up, streaming, failed; or left_out."""

    full_name: str
    state: str
    target: str = ""  # its name in the destination's database
    rows_copied: int = 0
    rows_estimated: int = 0  # 0: unknown
    bytes_copied: int = 0
    seconds_left: float | None = None  # of the copy; None: not copying, or nothing to go by yet
    changes: int = 0  # row changes durable in the destination since the pipe started
    changes_per_second: float = 0.0
    lag_bytes: int = 0  # WAL received and not durable yet
    lag_seconds: float = 0.0  # age of the oldest change that is not durable yet
    note: str = ""  # one sentence: what the table waits for
    last_error: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)  # what was not ordinary: "unfit price: nan"


@dataclass(frozen=True, slots=True)
class PipeStatus:
    """One pipe. ``state`` is a word of the pipe's lifecycle: starting, running, stopping, stopped, failed."""

    name: str
    state: str
    tables: tuple[TableStatus, ...] = ()
    position: Lsn = NOWHERE  # durable in the destination up to here
    received: Lsn = NOWHERE  # the largest position this connection has seen
    confirmed: Lsn = NOWHERE  # what the slot was told
    retained_bytes: int | None = None  # WAL the slot keeps at the source; None: not asked yet
    latency_p50_ms: float | None = None  # commit at the source → readable in the destination; None: no sample
    latency_p99_ms: float | None = None
    note: str = ""  # one sentence: what the pipe waits for
    last_error: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a table is set aside."""
        return any(table.state == "failed" for table in self.tables)

    @property
    def changes(self) -> int:
        """Row changes durable since the pipe started."""
        return sum(table.changes for table in self.tables)

    @property
    def changes_per_second(self) -> float:
        """Of all tables."""
        return sum(table.changes_per_second for table in self.tables)

    @property
    def lag_bytes(self) -> int:
        """WAL received and not durable yet."""
        return max(0, int(self.received) - int(self.position)) if self.position else 0

    @property
    def lag_seconds(self) -> float:
        """Of the table that lags most."""
        return max((table.lag_seconds for table in self.tables), default=0.0)

    def table(self, full_name: str) -> TableStatus:
        """The table of that name; KeyError where there is none."""
        for table in self.tables:
            if table.full_name == full_name:
                return table
        raise KeyError(full_name)


def as_json(value: object) -> object:
    """A status as what ``json.dumps`` takes: positions in PostgreSQL's notation, everything else as it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Lsn):
        return str(value)
    if isinstance(value, tuple | list):
        return [as_json(each) for each in value]
    if isinstance(value, dict):
        return {str(key): as_json(each) for key, each in value.items()}
    return value


def from_json(known: Mapping[str, Any]) -> PipeStatus:
    """The status that ``as_json`` was given, read from JSON."""
    positions = {name: Lsn.parse(known[name]) for name in ("position", "received", "confirmed")}
    tables = tuple(TableStatus(**table) for table in known["tables"])
    return PipeStatus(**{**known, **positions, "tables": tables, "warnings": tuple(known["warnings"])})


class Rate:
    """Events a second over a sliding window. ``now`` is any clock in seconds that never goes back.

    Events are kept in slots of a twentieth of the window, so memory does not grow with their number.
    """

    __slots__ = ("_first", "_slot", "_slots", "_total", "_window")

    def __init__(self, window_seconds: float = 5.0) -> None:
        self._window = window_seconds
        self._slot = window_seconds / 20
        self._slots: deque[tuple[float, int]] = deque()  # (start of the slot, events in it)
        self._total = 0
        self._first: float | None = None

    def add(self, events: int, now: float) -> None:
        """Count events that happened now."""
        if self._first is None:
            self._first = now
        if self._slots and now - self._slots[-1][0] < self._slot:
            start, before = self._slots[-1]
            self._slots[-1] = (start, before + events)
        else:
            self._slots.append((now, events))
        self._total += events
        self._forget(now)

    def per_second(self, now: float) -> float:
        """The rate, over the time since the first event while that is shorter than the window (and never less than a second)."""
        if self._first is None:
            return 0.0
        self._forget(now)
        return self._total / max(min(self._window, now - self._first), min(1.0, self._window))

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] <= now - self._window:
            self._total -= self._slots.popleft()[1]


class Latencies:
    """The most recent samples of commit → readable, in milliseconds, and their quantiles."""

    __slots__ = ("_samples",)

    def __init__(self, most: int = 4096) -> None:
        self._samples: deque[float] = deque(maxlen=most)

    def add(self, milliseconds: float) -> None:
        """Take a sample. The clocks of two machines may differ: a negative one counts as 0."""
        self._samples.append(max(0.0, milliseconds))

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def p50(self) -> float | None:
        """The median; None without a sample."""
        return self.quantile(0.5)

    @property
    def p99(self) -> float | None:
        """Ninety-nine of a hundred were faster; None without a sample."""
        return self.quantile(0.99)

    def quantile(self, share: float) -> float | None:
        """The nearest-rank quantile, ``share`` between 0 and 1; None without a sample."""
        if not self._samples:
            return None
        ordered = sorted(self._samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
