"""Whether the source is still the one that the pipe has read from, and what became of it where it is not (docs/design/0013).

A promoted standby begins a timeline, which forks from the old one at a position of the WAL. What was committed before is the same
on both; what the old one committed behind never happened. The slot may be gone, or stand before what the pipe has: then rows come
again, which changes nothing. Only where the destination has changes from behind the fork is something wrong there, and the tables
that have them are set aside; the commits of the new timeline get an epoch of their own, as their positions are used again.

Everything is asked before the stream begins, on the very connection that it comes over.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from penstock.batch import commit_of
from penstock.clickhouse import fit, lookup
from penstock.errors import (
    ConfigError,
    LostChangesError,
    SlotError,
    SlotHeldError,
    SourceError,
    SourceMovedError,
    SourceUnavailableError,
    TimelineChangedError,
)
from penstock.lsn import Lsn
from penstock.pipeline.alteration import Alteration
from penstock.pipeline.lifecycle import State
from penstock.postgres import catalog, slot
from penstock.postgres.connection import sibling
from penstock.postgres.timeline import Timeline, timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.clickhouse.client import Client
    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import PipeRecord, Store, TableRecord
    from penstock.postgres.connection import Connection
    from penstock.postgres.slot import SlotState, SystemIdentity

log = structlog.get_logger()

REPAIR = (
    "Copy the tables again: penstock resync PIPE.toml --all, then penstock run. "
    "Until that is done readers find the rows as they were."
)


@dataclass(frozen=True, slots=True)
class Ground:
    """What the source says of itself, on a connection for replication."""

    identity: SystemIdentity
    timeline: Timeline
    end: Lsn  # of its WAL
    slot: SlotState | None

    @classmethod
    def at(cls, connection: Connection, slot_name: str, *, standby: bool) -> Ground:
        """Ask. Raises SourceUnavailableError for a standby that is not meant: it may be on its way to be the primary."""
        identity = slot.system(connection)
        if identity.in_recovery and not standby:
            raise in_recovery()
        return cls(identity, timeline(connection), slot.insert_lsn(connection), slot.slot_state(connection, slot_name))


def in_recovery() -> SourceUnavailableError:
    """The server that answers is none that can be written to."""
    return SourceUnavailableError(
        "the server that answers is a standby, or still in recovery",
        hint="After a failover it may need a moment; Penstock tries again. Else let the DSN lead to the primary: "
        "the writer endpoint, or all servers, among which Penstock looks for it.",
    )


def prove(record: PipeRecord, position: Lsn, connection: Connection, *, standby: bool) -> None:
    """Make sure that the stream over this connection goes on where the pipe is (postgres.md 4 and 5).

    Raises SlotError for what the operator has to mend, TimelineChangedError where the pipe is to begin anew, on the new timeline.
    """
    ground = Ground.at(connection, record.slot, standby=standby)
    if problem := _broken(record, position, ground):
        raise SlotError(problem, hint=REPAIR)
    if ground.timeline != record.timeline:
        _require_no_old_primary(record, ground)
        raise TimelineChangedError(
            f"the source has changed its timeline from {record.timeline.number} to {ground.timeline.number}",
            hint="The pipe follows by itself.",
        )
    if record.owns_slot and ground.slot is not None and not (ground.slot.failover or ground.identity.in_recovery):
        _let_fail_over(connection, record.slot)


def _let_fail_over(connection: Connection, name: str) -> None:
    """A slot of ours that was made before: from 17 on a standby may keep it too. Without that right the pipe goes on as it is."""
    try:
        slot.let_fail_over(connection, name)
    except SlotHeldError:
        raise
    except SourceError as error:
        log.warning("slot is not kept for a failover", slot=name, why=error.message, fix=error.hint)


def _require_no_old_primary(record: PipeRecord, ground: Ground) -> None:
    if ground.timeline.is_behind(record.timeline):
        raise SourceUnavailableError(
            f"the server that answers is an old primary: it is on timeline {ground.timeline.number}, and this pipe has followed "
            f"the source to timeline {record.timeline.number}",
            hint="Let the DSN lead to the server that was promoted (the writer endpoint); Penstock tries again.",
        )


def _broken(record: PipeRecord, position: Lsn, ground: Ground) -> str:
    """Why no table can go on from where the pipe is; empty if one can."""
    return next(_problems(record, position, ground), "")


def _problems(record: PipeRecord, position: Lsn, ground: Ground) -> Iterator[str]:
    old, new, found = record.timeline.number, ground.timeline.number, ground.slot
    moved = f" after the source changed its timeline from {old} to {new}" if old != new else ""
    if ground.identity.system_identifier != record.system_identifier:
        yield (
            f"the source is another database system now (system identifier {ground.identity.system_identifier}, "
            f"was {record.system_identifier}): restored, upgraded, or a wrong DSN"
        )
    elif found is None:
        yield f'the replication slot "{record.slot}" is gone{moved}, and with it the changes since {position}'
    elif found.database != ground.identity.database:
        yield f'the replication slot "{record.slot}" is of the database "{found.database}"{moved}'
    elif found.lost:
        yield f'the replication slot "{record.slot}" has lost its WAL{moved} ({found.lost})'
    elif found.confirmed_flush_lsn > min(position, record.timeline.parts_from(ground.timeline)):
        yield (
            f'the slot "{record.slot}" is confirmed up to {found.confirmed_flush_lsn}{moved}, and this pipe has written up to '
            f"{position} only: somebody else has read from it"
        )
    elif (
        not (moved or ground.identity.in_recovery) and position > ground.end
    ):  # a standby that was restarted replays again
        yield f"the source's WAL ends at {ground.end}, before {position}, which this pipe has seen: it was restored"


def timeline_of(connection: Connection) -> Timeline:
    """The timeline of the server of a connection for SQL."""
    with contextlib.closing(sibling(connection, replication=True)) as replication:
        return timeline(replication)


def require_place(pipe: Pipe, connection: Connection) -> None:
    """See that the server is a primary, or a standby that is meant. Raises SourceUnavailableError, or ConfigError for what is missing."""
    if not slot.system(connection).in_recovery:
        return
    if not pipe.source.standby:
        raise in_recovery()
    if not pipe.source.publication:
        raise ConfigError(
            "source.standby is set, and a standby cannot make a publication",
            hint="Make one on the primary, such as: CREATE PUBLICATION penstock FOR ALL TABLES; and name it in source.publication.",
        )


# When the pipe begins


def settle(pipe: Pipe, store: Store, ends: tuple[Connection, Client], record: PipeRecord) -> None:
    """Bring the records of a pipe that has run before to what the source is now; afterwards ``prove`` holds.

    Tables that have changes which the source lost are set aside, or copied from their beginning where they are not copied yet. Where
    no table can go on, and not all of them are to be copied anew, raises SlotError. May be repeated after a crash at any line.
    """
    connection, client = ends
    tables = store.tables(pipe.name)
    with contextlib.closing(sibling(connection, replication=True)) as replication:
        ground = Ground.at(replication, record.slot, standby=pipe.source.standby)
    if problem := _broken(record, record.position, ground):
        elsewhere = ground.identity.system_identifier != record.system_identifier
        if not all(_is_new(pipe, table) and not (elsewhere and table.state is State.FAILED) for table in tables):
            raise SlotError(problem, hint=REPAIR)
        if elsewhere:
            _find_again(pipe, store, connection, tables)
        _begin_again(record, ground, connection)
        log.warning("begun again", why=problem, timeline=ground.timeline.number)
    elif ground.timeline != record.timeline:
        _require_no_old_primary(record, ground)
        follow(pipe, store, client, record, (ground.timeline, tables))
        return
    store.save_pipe(record)


def _is_new(pipe: Pipe, table: TableRecord) -> bool:
    """Whether nothing of the table is used again: it is set aside, or copied into a table that is still to be made."""
    if table.state is State.FAILED:
        return True
    beside = bool(table.building) and not table.building_id
    return table.state is State.WAITING and (beside or _is_null(pipe, table))


def _is_null(pipe: Pipe, table: TableRecord) -> bool:
    return pipe.tables.options_for(table.full_name).shape == "null"


def _find_again(pipe: Pipe, store: Store, connection: Connection, tables: Sequence[TableRecord]) -> None:
    """In another system the tables have other oids: they are known by their names."""
    oids = {name: oid for oid, name in catalog.names(connection).items()}
    found = [table for table in tables if table.full_name in oids]
    for table in found:
        table.oid, table.table = oids[table.full_name], ""
        table.building = table.fresh if table.building else ""
    for table in tables:
        if table not in found:
            log.warning("table is gone", table=table.full_name, target=table.target, why="its target stays as it is")
    store.replace_tables(pipe.name, found)


def _begin_again(record: PipeRecord, ground: Ground, connection: Connection) -> None:
    """Every table is copied anew: from a slot that is still to be made, or where the slot stands."""
    if record.position > ground.end or record.position > record.timeline.parts_from(ground.timeline):
        record.epochs = record.epochs.risen(Lsn(0))
    if ground.slot is not None and ground.slot.lost and record.owns_slot:
        slot.drop_slot(connection, record.slot)
    record.system_identifier, record.timeline = ground.identity.system_identifier, ground.timeline
    record.position = Lsn(0)


def follow(
    pipe: Pipe, store: Store, client: Client, record: PipeRecord, seen: tuple[Timeline, Sequence[TableRecord]]
) -> None:
    """Go on, on the new timeline. What is said of the tables is saved with that, or not at all: the epoch rises by what they have."""
    new, tables = seen
    fork = record.timeline.parts_from(new)
    judged = _Fork(pipe, client, record, fork, new.number)
    touched = [table for table in tables if not _is_new(pipe, table) and judged.sets_aside(store, table)]
    for table in tables if record.position > fork else ():
        if _is_null(pipe, table):
            log.warning(
                "views may have changes that the source lost", table=table.full_name, why="nothing of it is stored here"
            )
    log.warning(
        "failover" if not touched else "failover with loss",
        timeline=f"{record.timeline.number} to {new.number}",
        forked_at=str(fork),
        position=str(record.position),
        lost_bytes=max(0, record.position - fork),
        tables=[table.full_name for table in touched] or None,
    )
    if touched or record.position > fork:
        record.epochs = record.epochs.risen(fork)
    record.timeline, record.position = new, min(record.position, fork)
    store.save_pipe(record, tables)


@dataclass(frozen=True, slots=True)
class _Fork:
    """Where the timelines part, and what the pipe had from behind it."""

    pipe: Pipe
    client: Client
    record: PipeRecord
    at: Lsn
    number: int  # of the new timeline

    def sets_aside(self, store: Store, table: TableRecord) -> bool:
        """Whether the table has changes that the source lost; it is set aside then. One that is not copied yet starts over."""
        lost = self._furthest(table)
        begun = bool(lost) and table.state in (State.WAITING, State.COPYING, State.CATCHING_UP)
        if begun:
            table.set_back(beside=not _is_null(self.pipe, table))
            store.save_parts(self.pipe.name, table.oid, [])
            log.info("copy starts over", table=table.full_name, why="the source lost some of what it shows")
        elif lost:
            table.fail(self._error(table, lost))
        return bool(lost) and not begun

    def _furthest(self, table: TableRecord) -> Lsn:
        """The last position behind the fork that the table shows something of; 0 for none."""
        first = self.record.epochs.version(self.at)
        marks = [table.goal, table.seam, table.doubt, *(commit_of(each) + 1 for each in self._versions(table, first))]
        return Lsn(max((each for each in marks if each > self.at), default=0))

    def _versions(self, table: TableRecord, first: int) -> list[int]:
        """Versions that are of commits behind the fork: of the definition, of copied rows, of streamed rows."""
        begun = Alteration.from_json(table.begun).version if table.begun else 0
        name, database = self._place(table), self.pipe.database
        stored = 0
        if name and not _is_null(self.pipe, table):
            prefix = self.pipe.destination.metadata_prefix
            stored = lookup.newest_version(self.client, database, name, f"{prefix}version", first)
        return [each for each in (table.since, table.base, begun, stored) if each > first]

    def _place(self, table: TableRecord) -> str:
        """Where the table's rows are: a crash may have come after a rename, or after the new table took the old one's place."""
        name = table.building or table.target
        return fit.name_of(self.client, self.pipe.database, table.id_of(name), mostly=name)

    def _error(self, table: TableRecord, lost: Lsn) -> LostChangesError:
        return LostChangesError(
            f"the source was promoted (timeline {self.record.timeline.number} to {self.number}) as it stood at {self.at}, and "
            f"{table.full_name} has changes up to {lost} in the destination: {lost - self.at} bytes of WAL further, which the source lost",
            hint=f"Copy it again: penstock resync PIPE.toml {table.full_name}. Until then readers find the rows as they were.",
        )


class Guard:
    """Makes sure that connections beside the stream lead to the same server as the stream.

    A copy from a standby that lags behind, or from a server that has lost what the stream has, would be wrong.
    """

    def __init__(self, record: PipeRecord, *, standby: bool) -> None:
        self._record = record
        self._standby = standby
        self._known: set[str] = set()  # servers with the history of the record's timeline

    def __call__(self, connection: Connection) -> None:
        """Raises SourceUnavailableError where it leads elsewhere: what is being done waits until the stream has followed."""
        identity, known = slot.system(connection), self._record
        if identity.in_recovery and not self._standby:
            raise in_recovery()
        number = known.timeline.number if identity.in_recovery else identity.timeline  # a standby knows it late
        if (identity.system_identifier, number) != (known.system_identifier, known.timeline.number):
            raise _moved(identity)
        if identity.in_recovery or not known.timeline.before or identity.server in self._known:
            return
        if (
            timeline_of(connection) != known.timeline
        ):  # two standbys may both have been promoted to a timeline of this number
            raise _moved(identity)
        self._known.add(identity.server)


def _moved(identity: SystemIdentity) -> SourceMovedError:
    return SourceMovedError(
        f"the DSN leads to another server now (system {identity.system_identifier}, timeline {identity.timeline})",
        hint="Penstock looks whether it is the source after a failover, and follows.",
    )
