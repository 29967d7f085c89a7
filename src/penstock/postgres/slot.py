"""Slot, fence, heartbeat, snapshot, and the publication's names: what PostgreSQL keeps for a pipe, and how the copy meets the stream.

The numbers in brackets are the rules of postgres.md.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from penstock.errors import SlotError
from penstock.lsn import Lsn
from penstock.postgres import QUERIES
from penstock.postgres.connection import sibling, translated
from penstock.postgres.publication import drop_publication, ensure_publication, published
from penstock.postgres.timeline import SystemIdentity, system
from penstock.postgres.waiting import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import pq

    from penstock.postgres.connection import Connection, Connector

__all__ = [
    "Session",
    "SlotState",
    "SystemIdentity",
    "create_slot",
    "drop_publication",
    "drop_slot",
    "end_former_session",
    "ensure_publication",
    "exported_snapshot",
    "fence",
    "heartbeat",
    "in_progress",
    "insert_lsn",
    "is_at_work",
    "let_fail_over",
    "published",
    "slot_state",
    "system",
    "this_session",
]

PLUGIN = "pgoutput"
FAILOVER_SINCE = 17_00_00
LONGEST_SECONDS = 3600.0  # WAL is kept meanwhile


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class SlotState:
    """A row of pg_replication_slots, as far as this version has it."""

    name: str
    plugin: str
    database: str
    active_pid: int | None
    confirmed_flush_lsn: Lsn
    restart_lsn: Lsn
    retained_bytes: int
    wal_status: str  # "reserved", "extended", "unreserved", "lost"; empty on 12
    invalidation: str  # why it was invalidated, from 17 on
    temporary: bool
    failover: bool | None  # whether standbys may keep it too; None before 17

    @property
    def lost(self) -> str:
        """Why the slot is of no use any more; empty for a good one."""
        return self.invalidation or ("its WAL was removed" if self.wal_status == "lost" else "")


def slot_state(connection: Connection, name: str) -> SlotState | None:
    """The slot as it is, None when there is none."""
    with translated(f'slot "{name}"'):
        row = connection.execute(QUERIES["slot"], {"name": name}).fetchone()
    if row is None:
        return None
    known: dict[str, Any] = row[0]
    return SlotState(
        name=name,
        plugin=known["plugin"] or "",
        database=known["database"] or "",
        active_pid=known["active_pid"],
        confirmed_flush_lsn=Lsn.parse(known["confirmed_flush_lsn"] or "0/0"),
        restart_lsn=Lsn.parse(known["restart_lsn"] or "0/0"),
        retained_bytes=int(known["retained"] or 0),
        wal_status=known.get("wal_status") or "",
        invalidation=known.get("invalidation_reason") or ("conflict with recovery" if known.get("conflicting") else ""),
        temporary=known["temporary"],
        failover=known.get("failover"),
    )


def create_slot(
    connection: Connection,
    name: str,
    *,
    report: Callable[[str], None],
    stopped: Callable[[], bool] = _never,
    longest_seconds: float = LONGEST_SECONDS,
) -> Lsn:
    """Make the slot and return the position at which its stream begins. From 17 on standbys may keep it too.

    PostgreSQL waits for every transaction that runs; meanwhile a second connection finds out which, and ``report`` tells.
    What ``report`` raises ends the waiting, and so do ``stopped`` and ``longest_seconds``, with SlotError; there is no slot then.
    """
    keeps = connection.info.server_version >= FAILOVER_SINCE and not system(connection).in_recovery
    more = ", failover => true" if keeps else ""
    statement = sql.SQL("select lsn::text from pg_catalog.pg_create_logical_replication_slot({}, {}{})").format(
        name, PLUGIN, sql.SQL(more)
    )
    doing = f'creating slot "{name}"'
    made = statement.as_bytes(connection)
    ends_at = time.monotonic() + longest_seconds

    def told(waits: str) -> None:
        if time.monotonic() > ends_at:
            raise SlotError(
                f"{waits}, and was given up after {longest_seconds:.0f} s",
                hint="Start the pipe again when they have ended; or end them: select pg_terminate_backend(PID); rollback prepared '…';",
            )
        report(waits)

    result = watched(connection, made, doing, report=told, stopped=stopped)
    return Lsn.parse((result.get_value(0, 0) or b"").decode())


def let_fail_over(connection: Connection, name: str) -> None:
    """Let standbys keep a slot that nobody streams from, where they can (17 and later); by a connection for replication."""
    if connection.info.server_version >= FAILOVER_SINCE:
        with translated(f'altering slot "{name}"'):
            quoted = sql.SQL('"' + name.replace('"', '""') + '"')  # the replication grammar knows doubled quotes only
            connection.execute(sql.SQL("ALTER_REPLICATION_SLOT {} (FAILOVER true)").format(quoted))


def drop_slot(connection: Connection, name: str) -> None:
    """Drop it if it exists. Raises SlotHeldError while somebody streams from it."""
    with translated(f'dropping slot "{name}"'):
        connection.execute(
            "select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where slot_name = %s",
            (name,),
        )


@dataclass(frozen=True, slots=True)
class Session:
    """One session at the server. The number of its process is used again; the moment at which it began is not."""

    pid: int
    began: str  # as PostgreSQL prints it, to the microsecond


def this_session(connection: Connection) -> Session:
    """The session of this connection; one for replication will do."""
    with translated("asking for this session"):
        row = connection.execute(QUERIES["this_session"]).fetchone()
    assert row is not None  # noqa: S101  (a session always sees itself)
    return Session(*row)


def end_former_session(connection: Connection, slot: str, former: Session) -> bool:
    """End the session that holds the slot if it is ``former``, which was cut off and has not been told; never anybody else's.

    Whether it was: it must be the same process, begun at the same moment, of the role and the application name of ``connection``.
    """
    values = {"slot": slot, "pid": former.pid, "began": former.began}
    with translated(f'ending the former session of slot "{slot}"'):
        return connection.execute(QUERIES["end_former_session"], values).fetchone() == (True,)


def is_at_work(connection: Connection, session: Session) -> bool:
    """Whether the session is there and decodes: it waits neither for news nor for its client to take something."""
    with translated("asking for a session's state"):
        row = connection.execute(QUERIES["at_work"], {"pid": session.pid, "began": session.began}).fetchone()
    return row == (True,)


def awaited_standbys(connection: Connection, session: Session) -> list[str]:
    """The standbys, by their slots, that a sender waits for before it sends on: those of ``synchronized_standby_slots`` (17 and later)."""
    values = {"pid": session.pid, "began": session.began}
    with translated("asking whom a sender waits for"):
        return [text for (text,) in connection.execute(QUERIES["awaited_standbys"], values)]


@contextlib.contextmanager
def exported_snapshot(
    connector: Connector, *, report: Callable[[str], None] = lambda _: None, stopped: Callable[[], bool] = _never
) -> Iterator[tuple[str, Lsn]]:
    """A snapshot's name and the position of its exact seam with the stream (postgres.md 14), for as long as the context lasts.

    A transaction is in the snapshot if and only if its Commit's end_lsn is at most the position. The temporary slot that makes it needs a
    free slot and a free sender.
    """
    with _temporary_slot(
        connector.replication({}), "exporting a snapshot", report, stopped, connector.connect
    ) as result:
        yield (result.get_value(0, 2) or b"").decode(), Lsn.parse((result.get_value(0, 1) or b"").decode())


@contextlib.contextmanager
def _temporary_slot(
    connection: Connection,
    doing: str,
    report: Callable[[str], None],
    stopped: Callable[[], bool],
    other: Callable[[], Connection],
) -> Iterator[pq.abc.PGresult]:
    """A slot that exports a snapshot, for as long as the context lasts. Closes the connection."""
    name = f"penstock_seam_{os.getpid()}_{secrets.token_hex(4)}"
    command = f'CREATE_REPLICATION_SLOT "{name}" TEMPORARY LOGICAL {PLUGIN} EXPORT_SNAPSHOT'
    try:
        yield watched(connection, command.encode(), doing, report=report, stopped=stopped, other=other)
    finally:
        connection.close()


# The fence


def fence(
    connection: Connection,
    report: Callable[[str], None],
    *,
    poll_seconds: float = 0.05,
    stopped: Callable[[], bool] = _never,
) -> bool:
    """Return when every transaction that runs now has ended (postgres.md 9); False when ``stopped`` said so before.

    To be called after the slot is made, or after ALTER PUBLICATION has committed: what commits later is seen by the stream, what committed
    earlier by the copy. ``report`` names whom it waits for, whenever that changes; what it raises ends the waiting.
    """
    with translated("the fence"):
        if connection.execute("select pg_catalog.pg_is_in_recovery()").fetchone() == (True,):
            return _fence_on_standby(connection, report, stopped)
        (current,) = connection.execute("select pg_catalog.txid_current()").fetchone() or (0,)
        said: list[str] = []
        while _oldest(connection) <= current:
            if stopped():
                return False
            blockers = [text for (text,) in connection.execute(QUERIES["blockers"], {"xid": current & 0xFFFFFFFF})]
            if blockers and blockers != said:
                report(f"the copy waits for transactions that began before it: {', '.join(blockers)}")
                said = blockers
            time.sleep(poll_seconds)
    return True


def _fence_on_standby(connection: Connection, report: Callable[[str], None], stopped: Callable[[], bool]) -> bool:
    """The making of a slot waits for all that run, by what the primary logs of them; a standby cannot tell by itself which do."""
    try:
        with _temporary_slot(
            sibling(connection, replication=True), "fence", report, stopped, lambda: sibling(connection)
        ):
            return True
    except SlotError:
        if stopped():
            return False
        raise


def _oldest(connection: Connection) -> int:
    (oldest,) = connection.execute(
        "select pg_catalog.txid_snapshot_xmin(pg_catalog.txid_current_snapshot())"
    ).fetchone() or (0,)
    return int(oldest)


def in_progress(connection: Connection, xid32: int) -> bool:
    """Whether a transaction of the stream, by its 32-bit id, is not yet visible to a new snapshot (postgres.md 23)."""
    with translated("asking for a transaction's state"):
        (text,) = connection.execute("select pg_catalog.txid_current_snapshot()::text").fetchone() or ("1:1:",)
    xmin, xmax, running = str(text).split(":")
    ahead = (int(xmax) - xid32) & 0xFFFFFFFF  # how far the id lies behind the next one, around the 32-bit circle
    xid = int(xmax) - ahead if ahead < 1 << 31 else int(xmax) + (1 << 32) - ahead
    if xid < int(xmin):
        return False
    return xid >= int(xmax) or str(xid) in running.split(",")


# Positions


def heartbeat(connection: Connection) -> None:
    """Commit a transaction that the stream sees, and nobody else (postgres.md 7); on a standby nobody can."""
    with translated("the heartbeat"):
        connection.execute(
            "select pg_catalog.pg_logical_emit_message(true, 'penstock', '') where not pg_catalog.pg_is_in_recovery()"
        )


def insert_lsn(connection: Connection) -> Lsn:
    """The end of the WAL, what is not yet flushed included (postgres.md 6); on a standby, of what can be seen there."""
    with translated("asking for the end of the WAL"):
        (text,) = connection.execute(QUERIES["end"]).fetchone() or ("0/0",)
    return Lsn.parse(text)
