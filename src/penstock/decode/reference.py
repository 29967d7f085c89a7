"""The decoders in plain Python: what is meant. The contract stands in ``penstock.decode``.

``pgoutput.py`` and ``copytext.py`` know the layouts, ``codecs.py`` the values, ``binding.py`` turns a change into rows, ``rows.py``
rows into batches. This file holds the stream's state: transactions, positions, relations, and who waits for what.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.batch import MOST_EPOCHS, ORDINAL_BITS, RECORD_BITS, Batch, Item, Relation, Truncate, epoch_of, version_of
from penstock.decode.binding import Binding, RowRejectedError
from penstock.decode.codecs import encode
from penstock.decode.copytext import CopyDecoder
from penstock.decode.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    KeepAlive,
    Message,
    TruncateTables,
    Update,
)
from penstock.decode.pgoutput import parse, split, start_of
from penstock.decode.rows import Pending, Row
from penstock.errors import FrameError
from penstock.plan import Operation, Plan, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["CopyDecoder", "StreamDecoder", "encode"]

_MOST = (1 << ORDINAL_BITS) - 1


class StreamDecoder:
    """The stream of one connection."""

    def __init__(self, max_rows: int, max_bytes: int, starts: Sequence[int]) -> None:
        if len(starts) > MOST_EPOCHS:
            raise ValueError(f"the epoch {len(starts)} does not fit into 8 bits")
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._starts = starts
        self._frames: Iterator[bytes] = iter(())
        self._ready: deque[Item] = deque()
        self._widths: dict[int, int] = {}  # columns of each relation announced
        self._bindings: dict[int, Binding] = {}
        self._pending: dict[int, Pending] = {}  # by the table's oid
        self._transaction: Begin | None = None
        self._begun: Begin | None = None  # the last one, also when it has ended
        self._start = 0  # of the current message's WAL record
        self._ordinal = 0
        self._reply_requested = False
        self.position = 0
        self.received = 0
        self.committed_at = 0
        self.changes = 0
        self.transactions = 0

    def bind(self, relation_oid: int, plan: Plan, source: Sequence[int], old_is_full: bool, since: int = 0) -> None:
        """Rows of this relation go into ``plan``, from version ``since`` on, until it is announced anew.

        Raises ValueError unless ``source`` fits its Relation."""
        if len(source) != self._widths.get(relation_oid, -1):
            raise ValueError(f"relation {relation_oid} was not announced with {len(source)} columns")
        self._bindings[relation_oid] = Binding(plan, source, old_is_full=old_is_full, since=since)

    def unbind(self, relation_oid: int) -> None:
        """Rows of this relation are skipped."""
        self._bindings.pop(relation_oid, None)

    def receive(self, frames: bytes | bytearray | memoryview) -> None:
        """Hand over the next frames, after the ones before are used up."""
        self._frames = split(bytes(frames))

    def next_item(self) -> Item | None:
        """Decode until something needs attention; None when the frames are used up."""
        while not self._ready:
            payload = next(self._frames, None)
            if payload is None:
                return None
            self._start = start_of(payload)
            self._apply(parse(payload))
        return self._ready.popleft()

    def take(self, table_oid: int) -> Batch | None:
        """The pending rows of one table."""
        pending = self._pending.pop(table_oid, None)
        return pending.batch() if pending else None

    @property
    def pending(self) -> dict[int, tuple[int, int, int]]:
        """Rows, bytes of text and floor of each table with pending rows."""
        return {oid: (each.rows, each.text_bytes, each.floor) for oid, each in self._pending.items()}

    @property
    def reply_requested(self) -> bool:
        """Whether a keep-alive asked for an answer since this was last read."""
        asked, self._reply_requested = self._reply_requested, False
        return asked

    @property
    def place(self) -> tuple[int, int]:
        """The version of the message read last, and the xid of its transaction."""
        begin = self._begun
        return (self._version(begin), begin.xid) if begin else (0, 0)

    def _apply(self, message: Message | None) -> None:
        match message:
            case Insert() | Update() | Delete():
                self._change(message)
            case Begin():
                self._begin(message)
            case Commit():
                self._commit(message)
            case KeepAlive():
                self._keep_alive(message)
            case Relation():
                self._widths[message.oid] = len(message.columns)
                self._bindings.pop(message.oid, None)
                self._ready.append(message)
            case TruncateTables():
                self._truncate(message)

    def _begin(self, begin: Begin) -> None:
        if self._transaction:
            raise _misplaced("a Begin came within a transaction")
        self._transaction = self._begun = begin
        self._ordinal = 0
        self.committed_at = begin.committed_at

    def _commit(self, commit: Commit) -> None:
        if not self._transaction:
            raise _misplaced("a Commit came without its Begin")
        self._transaction = None
        self.transactions += 1
        self.position = max(self.position, commit.end_lsn)
        self.received = max(self.received, commit.end_lsn)

    def _keep_alive(self, message: KeepAlive) -> None:
        self.received = max(self.received, message.wal_end)
        self._reply_requested = self._reply_requested or message.reply_requested
        if not self._transaction:  # within one, walEnd is beyond changes that are still to come
            self.position = max(self.position, message.wal_end)

    def _change(self, change: Insert | Update | Delete) -> None:
        begin = self._counted(type(change).__name__)
        self.changes += 1
        width = self._widths.get(change.oid)
        if width is None:
            raise _misplaced(f"rows of relation {change.oid} came without its Relation message")
        for fields in (getattr(change, "old", None), getattr(change, "new", None)):
            if fields is not None and len(fields) != width:
                raise _misplaced(f"a row of relation {change.oid} has {len(fields)} columns instead of {width}")
        binding = self._bindings.get(change.oid)
        if binding is None or self._version(begin) < binding.since:
            return
        try:
            rows = _rows(binding, change, begin.xid)
        except RowRejectedError as error:
            self._unbind_plan(binding.plan)
            self._ready.append(replace(error.rejected, key=binding.key_of(change)))
        else:
            self._append(binding.plan, rows, begin)

    def _truncate(self, message: TruncateTables) -> None:
        begin = self._counted("Truncate")
        bound = [self._bindings[oid] for oid in message.oids if oid in self._bindings]
        version = self._version(begin)
        told = [each for each in bound if each.plan.shape is Shape.HISTORY and version >= each.since]
        histories = {id(each.plan): each for each in told}
        for binding in histories.values():
            self._append(binding.plan, [binding.encoding.empty(Operation.TRUNCATE)], begin)
        self._ready.append(Truncate(message.oids, version, message.cascade, message.restart_identity))

    def _counted(self, name: str) -> Begin:
        """Place a message in its transaction."""
        if not self._transaction:
            raise _misplaced(f"{name} came outside a transaction")
        self._ordinal = max(self._start << RECORD_BITS & _MOST, self._ordinal + 1)
        return self._transaction

    def _version(self, begin: Begin) -> int:
        return version_of(epoch_of(self._starts, begin.commit_lsn), begin.commit_lsn, self._ordinal)

    def _append(self, plan: Plan, rows: list[Row], begin: Begin) -> None:
        """Add the rows of one change, which stay together, and hand out what is full, or what waits for another plan of the table."""
        oid = plan.table.oid
        if oid in self._pending and self._pending[oid].plan is not plan:
            self._ready.append(self._pending.pop(oid).batch())
        pending = self._pending.setdefault(oid, Pending(plan, floor=self.position))
        for row in rows:
            row.version, row.committed_at = self._version(begin), begin.committed_at
            pending.append(row)
        if pending.rows >= self._max_rows or pending.text_bytes >= self._max_bytes:
            self._ready.append(self._pending.pop(oid).batch())

    def _unbind_plan(self, plan: Plan) -> None:
        self._bindings = {oid: each for oid, each in self._bindings.items() if each.plan is not plan}


def _rows(binding: Binding, change: Insert | Update | Delete, xid: int) -> list[Row]:
    match change:
        case Insert():
            return binding.insert(change.new, xid=xid)
        case Update():
            return binding.update(change.new, change.old, marked_full=change.marked_full, xid=xid)
        case Delete():
            return binding.delete(change.old, marked_full=change.marked_full, xid=xid)


def _misplaced(problem: str) -> FrameError:
    return FrameError(problem, hint="Penstock reads the stream again from the last confirmed position.")
