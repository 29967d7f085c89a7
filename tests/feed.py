"""A stream decoder with one bound table, fed transaction by transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests import fix_frames as frame
from tests.native_block import rows_of
from tests.plans import TABLE_OID

from penstock.batch import Batch, Item, Relation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from penstock.plan import Plan

OID = 16_384  # of the relation: not the table's, as for a leaf


class Feed:
    """``announce`` is false for tests that send the Relation message themselves; every Relation is bound to the plan."""

    def __init__(
        self,
        decoder: ModuleType,
        plan: Plan,
        *,
        full: bool = False,
        announce: bool = True,
        max_rows: int = 1000,
        max_bytes: int = 1 << 20,
        starts: Sequence[int] = (),
    ) -> None:
        self.stream = decoder.StreamDecoder(max_rows, max_bytes, starts)
        self.plan = plan
        self.full = full
        self._lsn = 0x100
        if announce:
            assert [type(item) for item in self.send(self.relation())] == [Relation]

    def relation(self, oid: int = OID) -> bytes:
        columns = [(column.name, column.number, column.type.modifier) for column in self.plan.table.columns]
        return frame.relation(oid, columns)

    def send(self, *frames: bytes) -> list[Item]:
        """Everything that comes out, Relations included, which are bound."""
        self.stream.receive(b"".join(frames))
        items: list[Item] = []
        while (item := self.stream.next_item()) is not None:
            items.append(item)
            if isinstance(item, Relation):
                source = self.plan.source_of(tuple(column.name for column in item.columns))
                self.stream.bind(item.oid, self.plan, source, self.full)
        return items

    def transaction(self, *changes: bytes, committed_at: int = frame.POSTGRES_EPOCH, xid: int = 700) -> list[Item]:
        """One transaction; commit LSNs are 0x100, 0x200, … and it ends 0x10 after."""
        lsn, self._lsn = self._lsn, self._lsn + 0x100
        return self.send(frame.begin(lsn, committed_at=committed_at, xid=xid), *changes, frame.commit(lsn, lsn + 0x10))

    def take(self) -> Batch:
        batch = self.stream.take(TABLE_OID)
        assert isinstance(batch, Batch)
        return batch

    def rows(self) -> list[dict[str, Any]]:
        return rows_of(self.take())

    def change(self, *changes: bytes) -> list[dict[str, Any]]:
        """The rows of one transaction."""
        assert self.transaction(*changes) == []
        return self.rows()
