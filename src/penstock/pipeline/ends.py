"""The two ends of a pipe, as the pipeline needs them: blocking calls, for threads."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from penstock.clickhouse import alter, ddl, fit, lookup
from penstock.clickhouse.connect import folder_errors
from penstock.clickhouse.writer import Writer
from penstock.errors import BadDataError, SourceUnavailableError, ValueUnreadableError
from penstock.pipeline import places
from penstock.pipeline.alteration import constants, perform
from penstock.pipeline.complete import complete
from penstock.pipeline.copy import TableRewrittenError
from penstock.pipeline.enlist import is_mended, require_free
from penstock.pipeline.evolve import unpublished
from penstock.pipeline.versions import key_numbers
from penstock.postgres import catalog, copy, publication, slot
from penstock.postgres.waiting import ALONE, Waiting, told
from penstock.spill import Spill

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Collection, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from penstock.batch import Batch
    from penstock.clickhouse.client import Client
    from penstock.config import Pipe
    from penstock.lsn import Lsn
    from penstock.pipeline.alteration import Alteration, Ways
    from penstock.pipeline.checkpoint import TableRecord
    from penstock.pipeline.complete import Doubt, Identity, Stored
    from penstock.pipeline.evolve import Change
    from penstock.plan import Plan
    from penstock.postgres.connection import Connection, Connector
    from penstock.table import Table

PART_BYTES = 32 << 20  # a part of wide rows is no larger than this
FENCE_POLL_SECONDS = 0.05
VISIBLE_POLL_SECONDS = 0.02
VISIBLE_SECONDS = 5.0  # so long may a transaction of the stream be invisible before it is said


class SourceEnd:
    """PostgreSQL."""

    def __init__(self, connector: Connector, scratch: Path | None = None, publication: str = "") -> None:
        """``scratch``: a folder for values that are too large for memory."""
        self.connector = connector
        self._publication = publication
        self._scratch = scratch

    def fence(self, report: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        """Return when every transaction that runs now has ended."""
        with self.connector.connect() as connection:
            slot.fence(connection, report, poll_seconds=FENCE_POLL_SECONDS, stopped=stopped)

    def look(self, oid: int, xid: int = 0, *, waiting: Waiting = ALONE) -> Table | None:
        """The table as the catalog has it once the transaction ``xid`` is visible; None when it is gone."""
        with self.connector.connect() as connection, told(connection, "looking at a table", waiting):
            _wait_until_visible(connection, xid)
            return catalog.look(connection, {oid}, self._publication).get(oid)

    def names(self) -> dict[int, str]:
        """``schema.name`` of every table, by oid."""
        with self.connector.connect() as connection:
            return catalog.names(connection)

    def listed(self) -> dict[str, str]:
        """What stands in the publication itself, and what tells since when."""
        with self.connector.connect() as connection:
            return publication.listed(connection, self._publication)

    def publish(self, oids: set[int], pipe: Pipe, waiting: Waiting) -> set[int]:
        """See that the pipe's publication has these tables, if it is ours; returns those that somebody keeps locked."""
        if pipe.source.publication:
            return set()
        with self.connector.connect() as connection, told(connection, "publishing", waiting):
            tables = list(catalog.look(connection, oids).values())
            return publication.publish(connection, pipe.publication, tables, owned=True, waiting=waiting)

    def defaults(self, table: Table, columns: Mapping[int, str]) -> dict[str, str] | None:
        """What rows that are older than these columns show for them, as text; None when that is not known any more."""
        with self.connector.connect() as connection:
            return catalog.missing_values(connection, table, columns)

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

    def is_at_work(self, session: slot.Session) -> bool:
        """Whether a sender has something to do, rather than waiting for news or for us."""
        with self.connector.connect() as connection:
            return slot.is_at_work(connection, session)

    def plan_parts(self, plan: Plan, part_rows: int, only: Collection[int] = ()) -> list[str]:
        """The table's parts, each as JSON; ``only`` those of these partitions."""
        with self.connector.connect(copying=True) as connection:
            rows = min(part_rows, _rows_in(PART_BYTES, plan.table))
            parts = copy.plan_parts(connection, plan.table, _names(plan), part_rows=rows)
        return [part.to_json() for part in parts if not only or part.relation in only]

    def read_part(
        self, plan: Plan, part: str, snapshot: str, seen: Callable[[Lsn], None]
    ) -> Generator[bytes, None, None]:
        """Chunks of COPY text, after ``seen`` was told a position behind all that they show.

        Raises TableRewrittenError when the table, or the snapshot, is no longer the one that was planned.
        """
        chunks = copy.read_part(
            self.connector, copy.Part.from_json(part), plan.table, _names(plan), snapshot=snapshot or None, seen=seen
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
    ) -> tuple[Mapping[Identity, copy.Row], Lsn] | None:
        """Rows as they are now, by key, once the transactions ``xids`` are visible (postgres.md 23); and the WAL's end after that.

        None when the table was dropped: its rows do not count as deleted. Raises SchemaConflictError when it is there, and cannot be
        followed.
        """
        with self.connector.connect(copying=True) as connection:
            for xid in xids:
                _wait_until_visible(connection, xid)
            now = catalog.look(connection, {plan.table.oid}, self._publication).get(plan.table.oid)
            if now is None and not catalog.exists(connection, plan.table.oid):
                return None
            table, names = _today(now, plan.table, [plan.columns[each].name for each in columns])
            if table is None:
                return {}, slot.insert_lsn(connection)
            read = [name for name in names if name]
            try:
                rows = copy.read_rows(connection, table, read, identities, spill=Spill(self._scratch))
            except ValueUnreadableError as error:
                raise BadDataError(error.message, hint=error.hint) from None
            places = [read.index(name) if name else -1 for name in names]
            found = {key: tuple(row[each] if each >= 0 else None for each in places) for key, row in rows.items()}
            return found, slot.insert_lsn(connection)


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
        if batch.rows:
            self._writer.insert(batch)

    def settle(self, target: str) -> None:
        """Make sure that no insert into this table runs any more that was given up."""
        self._writer.settle(target)

    def newest(
        self, plan: Plan, identities: Sequence[Identity], columns: Sequence[int], below: int | None
    ) -> Mapping[Identity, Stored]:
        """The newest stored row of each key."""
        return lookup.newest(self.client, self.database, plan, identities, columns, below=below)

    def places(self, plan: Plan, identities: Sequence[Identity]) -> Mapping[Identity, Sequence[Stored]]:
        """The rows of each key that are alive, one a place."""
        return lookup.places(self.client, self.database, plan, identities)

    def limits(self, target: str) -> dict[str, str]:
        """The table's own settings of how much is merged."""
        return alter.limits(self.client, self.database, target)

    def alter(self, plans: tuple[Plan, Plan], step: Alteration, todo: Change, ways: Ways) -> None:
        """Bring the table from the first plan to the second, and its view with it. May be repeated."""
        self._writer.settle(plans[0].target)
        perform(self.client, self.database, plans, step, todo, ways)

    def constants(self, plan: Plan, texts: Mapping[str, str]) -> dict[str, str] | None:
        """Expressions that give exactly the values with these texts, by column; None where one cannot be written."""
        return constants(self.client, plan, texts)

    def put_aside(self, record: TableRecord, new: str) -> None:
        """Give a table whose source is gone another name, if it is ours, and drop what was to replace it. May be repeated."""
        self._writer.settle(record.target)
        if record.target_id and self._identity(record.target) in ("", record.target_id):
            alter.move(self.client, self.database, record.target, new)
        if record.building and record.building_id in ("", self._identity(record.building)):
            ddl.drop_table(self.client, self.database, record.building)

    def _identity(self, name: str) -> str:
        return fit.identity(self.client, self.database, name)

    def make_fresh(self, plan: Plan, *, beside: bool) -> str:
        """Make the plan's table; one that stands ``beside`` another anew, empty. Its id."""
        self._writer.settle(plan.target)
        if beside:
            ddl.drop_table(self.client, self.database, plan.target)
        ddl.ensure_table(self.client, self.database, plan)
        return self._identity(plan.target)

    def exists(self, name: str) -> bool:
        """Whether there is a table or view of that name."""
        return fit.table_exists(self.client, self.database, name)

    def require_free(self, plan: Plan, *, but: Collection[str]) -> None:
        """See that no table with rows, but for those with these ids, has the plan's target as its name. Raises TargetConflictError."""
        if self._identity(plan.target) not in but:
            require_free(self.client, self.database, plan)

    def is_mended(self, plan: Plan, record: TableRecord) -> bool:
        """Whether what the table lacked in the destination is there again."""
        return is_mended(self.client, self.database, plan, record)

    def put_in_place(self, plan: Plan, *, fresh: str, fresh_id: str, views: bool) -> None:
        """The table ``fresh`` takes the place of the plan's target at once. May be repeated."""
        self._writer.settle(fresh)
        alter.put_in_place(self.client, self.database, plan, fresh=fresh, fresh_id=fresh_id, views=views)

    def delete(self, plan: Plan, table_id: str, *, from_version: int, below: int) -> None:
        """Delete the rows with ``from_version`` ≤ version < ``below`` of the table with this id; durable when it returns."""
        self._writer.settle(plan.target)
        fit.require_own(self.client, self.database, plan, table_id)
        ddl.delete_versions(self.client, self.database, plan, from_version=from_version, below=below)


def _wait_until_visible(connection: Connection, xid: int) -> None:
    """Return when a transaction that the stream has brought is visible (postgres.md 23); at once for 0.

    A commit that waits for synchronous standbys is in the stream, and nobody sees it until they have answered. Raises
    SourceUnavailableError then, so that it is told, and the pipe can be stopped meanwhile.
    """
    ends_at = time.monotonic() + VISIBLE_SECONDS
    while xid and slot.in_progress(connection, xid):
        if time.monotonic() > ends_at:
            raise SourceUnavailableError(
                f"transaction {xid} is in the stream, and the source does not show it yet: its commit waits for a synchronous standby",
                hint="penstock check says whether it waits for the pipe itself. Otherwise see in pg_stat_replication which standby of "
                "synchronous_standby_names is missing. Penstock tries again.",
            )
        time.sleep(VISIBLE_POLL_SECONDS)


def _today(now: Table | None, table: Table, names: Sequence[str]) -> tuple[Table | None, list[str]]:
    """The table and its columns as they are called by now; an empty name for a column that is gone, None for a table without its key."""
    if now is None:
        raise unpublished(table)
    called = {column.number: column.name for column in now.columns}
    if [called.get(each) for each in key_numbers(table)] != list(now.key):
        return None, []
    return now, [called.get(table.column(name).number, "") for name in names]


def _rows_in(size: int, table: Table) -> int:
    """How many rows of the table so many bytes hold, out-of-line values included; by the statistics."""
    if not table.estimated_rows or not table.estimated_bytes:
        return sys.maxsize
    return max(1, size * table.estimated_rows // table.estimated_bytes)


def _names(plan: Plan) -> list[str]:
    return [column.name for column in plan.columns]
