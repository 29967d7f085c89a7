"""Whether the server has room for a pipe, and lets its connections through; part of ``checks.CHECKS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.finding import Finding, Fix, Severity
from penstock.language import N_, said, spoken
from penstock.postgres.connection import Connector
from penstock.postgres.question import quoted
from penstock.postgres.slot import slot_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres.question import Question

_SENDERS = 2  # one for the stream, one for the snapshot at which an exact copy begins
_SPARE_CONNECTIONS = 3  # for checks, the catalog and the slot


def capacity(asked: Question) -> Iterator[Finding]:
    """Whether there is room for a slot, a sender and the connections of the copy."""
    state = slot_state(asked.connection, asked.pipe.slot)
    settings, server = asked.settings, asked.server
    slots, senders = settings["max_replication_slots"].number, settings["max_wal_senders"].number
    if state is None and server.slots >= slots:
        yield _full("replication_slots", "max_replication_slots", slots, asked)
    running = 1 if state is not None and state.active_pid else 0
    if server.senders - running >= senders:
        yield _full("wal_senders", "max_wal_senders", senders, asked)
    elif server.senders - running + _SENDERS > senders:
        yield _scarce("wal_senders", "max_wal_senders", senders, asked)
    if not running:
        yield from _connections(asked)


_FULL = {
    "max_replication_slots": N_("all {most} replication slots are in use"),
    "max_wal_senders": N_("all {most} senders are in use"),
}


def _full(check: str, parameter: str, most: int, asked: Question) -> Finding:
    return Finding(
        check,
        Severity.BLOCKING,
        parameter,
        said(_FULL[parameter], most=most),
        said(
            "A pipe needs a replication slot, and a sender for its stream. Drop a slot that nobody needs, or raise the limit."
        ),
        asked.set(parameter, str(most + 4), restarts=True),
    )


def _scarce(check: str, parameter: str, most: int, asked: Question) -> Finding:
    return Finding(
        check,
        Severity.WARNING,
        parameter,
        said("only one of {most} senders is free", most=most),
        said("Copies that meet the stream exactly need a second one for a moment."),
        asked.set(parameter, str(most + 4), restarts=True),
    )


def _connections(asked: Question) -> Iterator[Finding]:
    settings, server = asked.settings, asked.server
    needed = asked.pipe.settings.copy_tables * asked.pipe.settings.copy_workers + _SPARE_CONNECTIONS
    most = settings["max_connections"].number - settings["superuser_reserved_connections"].number
    limits = (
        ("max_connections", most, server.connections, asked.set("max_connections", str(most + 50), restarts=True)),
        (
            server.role,
            server.role_limit,
            server.role_connections,
            Fix(sql=(f"ALTER ROLE {asked.role} CONNECTION LIMIT {server.role_connections + needed};",)),
        ),
        (
            server.database,
            server.database_limit,
            server.database_connections,
            Fix(
                sql=(
                    f"ALTER DATABASE {quoted(asked.server.database)} CONNECTION LIMIT {server.database_connections + needed};",
                )
            ),
        ),
    )
    for subject, limit, used, fix in limits:
        free = limit - used
        if limit >= 0 and free < needed and not (server.is_superuser and subject != "max_connections"):
            yield Finding(
                "connections",
                Severity.BLOCKING if free < _SPARE_CONNECTIONS else Severity.WARNING,
                subject,
                said(
                    "{free} of {limit} connections are free, and the pipe may open {needed}",
                    free=max(free, 0),
                    limit=limit,
                    needed=needed,
                ),
                said(
                    "A copy that gets no connection waits, and so may the application. "
                    "Raise the limit, or lower settings.copy_tables and copy_workers."
                ),
                fix,
            )


def replication_connection(asked: Question) -> Iterator[Finding]:
    """Whether a connection for replication gets through, as pg_hba.conf and proxies have their own mind about it."""
    server = asked.server
    if not server.may_replicate or server.senders >= asked.settings["max_wal_senders"].number:
        return
    if asked.connection.info.backend_pid != server.backend_pid:
        return  # a pooler, which is a finding already
    try:
        connection = Connector(asked.pipe.source, f"penstock {asked.pipe.name} check").replication({})
    except PenstockError as error:
        yield Finding(
            "replication_connection",
            Severity.BLOCKING,
            asked.connection.info.host or "",
            spoken(error.message),
            said("The stream of changes comes through a connection of its own kind."),
            Fix(advice=spoken(error.hint)),
        )
        return
    connection.close()


CHECKS: tuple[Callable[[Question], Iterator[Finding]], ...] = (capacity, replication_connection)
