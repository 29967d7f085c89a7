"""The two ends of a pipe, as the pipeline needs them: blocking calls, for threads."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from penstock.clickhouse import ddl, lookup
from penstock.clickhouse.connect import folder_errors
from penstock.clickhouse.writer import Writer
from penstock.errors import BadDataError, ValueUnreadableError
from penstock.pipeline import places
from penstock.pipeline.complete import complete
from penstock.pipeline.copy import TableRewrittenError
from penstock.postgres import copy, slot
from penstock.spill import Spill

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from penstock.batch import Batch
    from penstock.clickhouse.client import Client
    from penstock.lsn import Lsn
    from penstock.pipeline.complete import Doubt, Identity, Stored
    from penstock.plan import Plan
    from penstock.postgres.connection import Connector
    from penstock.table import Table

PART_BYTES = 32 << 20  # a part of wide rows is no larger than this
FENCE_POLL_SECONDS = 0.05
VISIBLE_POLL_SECONDS = 0.02


class SourceEnd:
    """PostgreSQL."""

    def __init__(self, connector: Connector, scratch: Path | None = None) -> None:
        """``scratch``: a folder for values that are too large for memory."""
        self.connector = connector
        self._scratch = scratch

    def fence(self, report: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        """Return when every transaction that runs now has ended."""
        with self.connector.connect() as connection:
            slot.fence(connection, report, poll_seconds=FENCE_POLL_SECONDS, stopped=stopped)

    def goal(self) -> Lsn:
        """A position behind everything that is visible now; a commit behind it is on its way (postgres.md 6)."""
        with self.connector.connect() as connection:
            lsn = slot.insert_lsn(connection)
            slot.heartbeat(connection)
        return lsn

    def end_former_session(self, slot_name: str, former: slot.Session) -> bool:
        """End the session that holds the slot if it is the one that we had and lost; whether it was."""
        with self.connector.connect() as connection:
            return slot.end_former_session(connection, slot_name, former)

    def plan_parts(self, plan: Plan, part_rows: int) -> list[str]:
        """The table's parts, each as JSON."""
        with self.connector.connect(copying=True) as connection:
            rows = min(part_rows, _rows_in(PART_BYTES, plan.table))
            parts = copy.plan_parts(connection, plan.table, _names(plan), part_rows=rows)
        return [part.to_json() for part in parts]

    def read_part(self, plan: Plan, part: str, snapshot: str) -> Generator[bytes, None, None]:
        """Chunks of COPY text. Raises TableRewrittenError when the table, or the snapshot, is no longer the one that was planned."""
        chunks = copy.read_part(
            self.connector, copy.Part.from_json(part), plan.table, _names(plan), snapshot=snapshot or None
        )
        try:
            yield from chunks
        except (copy.FilenodeChangedError, copy.SnapshotGoneError) as error:
            raise TableRewrittenError(error.message, hint=error.hint) from None
        except ValueUnreadableError as error:  # it stops its table only
            raise BadDataError(error.message, hint=error.hint) from None

    def snapshot(
        self, report: Callable[[str], None], stopped: Callable[[], bool]
    ) -> AbstractContextManager[tuple[str, Lsn]]:
        """An exported snapshot, and the position of the stream at which it was taken."""
        return slot.exported_snapshot(self.connector, report=report, stopped=stopped)

    def rows(
        self, plan: Plan, identities: Sequence[Identity], columns: Sequence[int], xids: Sequence[int]
    ) -> tuple[Mapping[Identity, copy.Row], Lsn]:
        """Rows as they are now, by key, once the transactions ``xids`` are visible (postgres.md 23); and the WAL's end after that."""
        with self.connector.connect(copying=True) as connection:
            for xid in xids:
                while slot.in_progress(connection, xid):
                    time.sleep(VISIBLE_POLL_SECONDS)
            names = [plan.columns[each].name for each in columns]
            try:
                rows = copy.read_rows(connection, plan.table, names, identities, spill=Spill(self._scratch))
            except ValueUnreadableError as error:
                raise BadDataError(error.message, hint=error.hint) from None
            return rows, slot.insert_lsn(connection)


class DestinationEnd:
    """ClickHouse."""

    def __init__(self, client: Client, database: str, source: SourceEnd) -> None:
        self.client = client
        self.database = database
        self._writer = Writer(client, database)
        self._source = source

    def insert(self, batch: Batch) -> None:
        """Insert a batch without holes; durable when it returns."""
        self._writer.insert(batch)

    def write(self, batch: Batch, doubt: Doubt, counters: Counter[str]) -> None:
        """Complete the batch's holes and insert it; durable when it returns."""
        with folder_errors(self.client.scratch):
            if any(hole.columns for hole in batch.holes):
                complete(batch, self, self._source, doubt, counters, self.client.spill())
            if batch.holes:  # by now they only name the rows
                places.settle(batch, self)
        self._writer.insert(batch)

    def newest(
        self, plan: Plan, identities: Sequence[Identity], columns: Sequence[int], below: int | None
    ) -> Mapping[Identity, Stored]:
        """The newest stored row of each key."""
        return lookup.newest(self.client, self.database, plan, identities, columns, below=below)

    def places(self, plan: Plan, identities: Sequence[Identity]) -> Mapping[Identity, Sequence[Stored]]:
        """The rows of each key that are alive, one a place."""
        return lookup.places(self.client, self.database, plan, identities)

    def delete(self, plan: Plan, *, from_version: int, below: int) -> None:
        """Delete the rows with ``from_version`` ≤ version < ``below``; durable when it returns."""
        self._writer.settle(plan.target)
        ddl.delete_versions(self.client, self.database, plan, from_version=from_version, below=below)


def _rows_in(size: int, table: Table) -> int:
    """How many rows of the table so many bytes hold, out-of-line values included; by the statistics."""
    if not table.estimated_rows or not table.estimated_bytes:
        return sys.maxsize
    return max(1, size * table.estimated_rows // table.estimated_bytes)


def _names(plan: Plan) -> list[str]:
    return [column.name for column in plan.columns]
