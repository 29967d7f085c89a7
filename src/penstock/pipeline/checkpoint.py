"""Written → saved → confirmed, never in another order (invariant 2).

What ClickHouse has acknowledged is *written*; the position up to which everything is written is *saved* in the
store; only then is it *confirmed* to the slot, which lets PostgreSQL forget the WAL before it.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from penstock.errors import ConfigError, TargetConflictError
from penstock.lsn import Lsn
from penstock.pipeline import failpoint
from penstock.pipeline.epochs import Epochs
from penstock.pipeline.lifecycle import State, change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from penstock.errors import PenstockError
    from penstock.postgres.timeline import Timeline

MOST_NAME_BYTES = 200
Counted: TypeAlias = "Mapping[int, Mapping[str, int]]"
"""Counters of tables, by oid."""


@dataclass(slots=True)
class PipeRecord:
    """What is known of a pipe that has run before."""

    name: str
    slot: str
    publication: str
    system_identifier: str
    timeline: Timeline
    position: Lsn  # saved
    epochs: Epochs = field(default_factory=Epochs)
    owns_publication: bool = True
    owns_slot: bool = True


LEFT_OUT = "left out: the pipe does not follow it any more"


@dataclass(slots=True)
class TableRecord:
    """What is known of a table of the pipe. ``fingerprint`` tells whether its columns are still those that were copied.

    ``table`` is the version that ClickHouse's table has, as JSON. Rows below the version ``since`` are durable, or came with the
    copy: they are skipped, and so are relations that were announced before it and are not like the table.
    ``target_id`` is of the target that was made or filled by this pipe: another table that has its name is somebody else's. ``heals`` says
    that what stopped the table is over when the target fits. ``base`` is the version of rows that are copied. While ``building``,
    rows go into a table of that name, beside the one that is read.
    """

    oid: int
    full_name: str
    target: str
    fingerprint: str
    state: State = State.WAITING
    reason: str = ""
    hint: str = ""
    goal: Lsn = field(default_factory=Lsn)  # the position that ends catching_up
    seam: Lsn = field(default_factory=Lsn)  # transactions that end at or before it came with the copy
    doubt: Lsn = field(
        default_factory=Lsn
    )  # until here, values that were read again may be of the future (complete.py)
    rows_copied: int = 0
    bytes_copied: int = 0
    table: str = ""
    since: int = 0
    base: int = 0
    building: str = ""
    target_id: str = ""  # of the table itself, whatever its name; empty: it is not ours
    building_id: str = ""  # likewise; empty: it is still to be made
    begun: str = ""  # the alteration under way, as JSON
    listed: dict[str, str] = field(
        default_factory=dict
    )  # since when the publication has its relations, by oid, or its schema
    heals: bool = False
    counters: Counter[str] = field(
        default_factory=Counter
    )  # what was not ordinary; what a crash has read twice counts twice

    def fail(self, error: PenstockError) -> None:
        """To be set aside."""
        self.state = change(self.state, State.FAILED)
        self.reason, self.hint = error.message, error.hint
        self.heals = isinstance(error, TargetConflictError)

    def wait(self) -> None:
        """To be copied."""
        if self.state is not State.WAITING:
            self.state = change(self.state, State.WAITING)

    def id_of(self, name: str) -> str:
        """The id of the target, or of the table that is built beside it."""
        return self.target_id if name == self.target else self.building_id

    @property
    def fresh(self) -> str:
        """The name of a table beside the one that is read."""
        return beside(self.target, "fresh", self.oid)

    def set_back(self, *, beside: bool) -> None:
        """To be copied anew: into a table ``beside`` the one that is read."""
        self.wait()
        self.reason = self.hint = ""
        self.goal = self.seam = self.doubt = Lsn(0)
        self.rows_copied = self.bytes_copied = self.base = 0
        self.begun, self.heals, self.counters, self.listed = "", False, Counter(), {}
        self.building, self.building_id = self.fresh if beside else "", ""

    @property
    def left_out(self) -> bool:
        """Whether the pipe's definition does not name it any more, or it cannot be followed: it waits for nothing."""
        return self.state is State.WAITING and self.hint == LEFT_OUT


def beside(target: str, word: str, oid: int) -> str:
    """A name beside the target's. ClickHouse, whose files have it with a %E8 for every odd byte, takes no longer ones."""
    name = f"{target}_{word}_{oid}"
    while target and len(re.sub(rb"\W", b"%E8", name.encode())) > MOST_NAME_BYTES:
        target = target[:-1]
        name = f"{target}_{word}_{oid}"
    return name


@dataclass(slots=True)
class PartRecord:
    """A part of a table's copy. ``body`` is what the postgres side needs to read it again, as JSON."""

    index: int
    body: str
    done: bool = False
    rows: int = 0
    bytes: int = 0


def require_known(pipe_name: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for a table that the pipe does not have."""
    there = sorted(set(known))
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(there) or 'no table yet'}."
            raise ConfigError(f'the pipe "{pipe_name}" has no table {name}', hint=hint)


class Store(Protocol):
    """Where a pipe's state is kept. Every method is durable when it returns, and may be called from any thread."""

    def pipe(self, name: str) -> PipeRecord | None:
        """The pipe's record, None before its first run."""

    def save_pipe(self, record: PipeRecord, tables: Sequence[TableRecord] = ()) -> None:
        """Insert or replace the pipe's record, and those of these tables with it."""

    def save_position(self, name: str, position: Lsn, counted: Counted) -> None:
        """Save the position up to which everything is written, and the counters of these tables with it."""

    def tables(self, name: str) -> list[TableRecord]:
        """The pipe's tables."""

    def save_table(self, name: str, record: TableRecord) -> None:
        """Insert or replace one table's record."""

    def replace_tables(self, name: str, records: Sequence[TableRecord]) -> None:
        """Let these be the pipe's tables, none of which has parts."""

    def parts(self, name: str, oid: int) -> list[PartRecord]:
        """A table's parts in order; empty before they are planned."""

    def save_parts(self, name: str, oid: int, parts: Sequence[PartRecord]) -> None:
        """Replace a table's parts."""

    def forget_table(self, name: str, oid: int) -> None:
        """Remove everything about one table."""

    def save_part(self, name: str, oid: int, part: PartRecord) -> None:
        """Replace one part."""


class Checkpoint:
    """Moves the saved and the confirmed position after the written one, one step at a time."""

    def __init__(self, store: Store, pipe_name: str, saved: Lsn, counted: Callable[[], Counted] = dict) -> None:
        """``counted`` gives the counters of tables, by oid, that have changed since it was asked."""
        self._store = store
        self._name = pipe_name
        self._counted = counted
        self.saved = saved

    async def advance(self, written: Lsn, confirm: Callable[[Lsn], None]) -> None:
        """Save ``written`` where it is news, then confirm it on the connection at hand."""
        counted = self._counted()
        if written > self.saved or counted:
            failpoint.reached("before save")
            reached = max(written, self.saved)
            await asyncio.to_thread(self._store.save_position, self._name, reached, counted)
            self.saved = reached
            failpoint.reached("after save")
        if written == self.saved:  # never backwards: a new connection begins before what is saved
            failpoint.reached("before confirm")
            confirm(written)


def written_position(reached: int, floors: Iterable[int]) -> Lsn:
    """Up to where everything is written: the oldest floor of what is not, otherwise what the stream has reached.

    ``floors`` are of the batches that wait, are in flight or are still being filled: each the last position
    before the batch's first row.
    """
    return Lsn(min(floors, default=reached))
