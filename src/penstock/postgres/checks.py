"""What is asked of the source before a pipe runs. A check returns findings; an error means that it could not be asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from penstock.errors import PublicationError, SourceError
from penstock.finding import Finding, Severity
from penstock.postgres import publication, slot, table_checks
from penstock.postgres.question import Question, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.config import Pipe
    from penstock.postgres.connection import Connection
    from penstock.table import Table

OLDEST = 12_00_00
ENOUGH_KEEP_MEGABYTES = 100 << 10  # what the providers' guides ask for
OTHERS = r"YugabyteDB|CockroachDB|Redshift"


def check(connection: Connection, pipe: Pipe, tables: Sequence[Table]) -> list[Finding]:
    """Every question, in the order of CHECKS. Raises what a connection raises."""
    asked = Question.of(connection, pipe, tables)
    return [finding for question in CHECKS for finding in _findings(question, asked)]


def _findings(question: Callable[[Question], Iterator[Finding]], asked: Question) -> list[Finding]:
    try:
        return list(question(asked))
    except SourceError as error:
        name = question.__name__.strip("_")
        return [Finding(name, Severity.WARNING, "source", f"this could not be checked: {error.message}", error.hint)]


# The server


def _version(asked: Question) -> Iterator[Finding]:
    other = re.search(OTHERS, asked.server.version)
    if other:
        yield Finding(
            "version",
            Severity.BLOCKING,
            other[0],
            "this is not PostgreSQL, and has no logical decoding that Penstock can read",
        )
    elif asked.server.version_number < OLDEST:
        number = asked.server.version_number // 10000
        yield Finding(
            "version", Severity.BLOCKING, f"PostgreSQL {number}", "PostgreSQL 12 is the oldest", "Upgrade the server."
        )


def _pooler(asked: Question) -> Iterator[Finding]:
    """A pooler hands out process ids of its own."""
    if asked.connection.info.backend_pid != asked.server.backend_pid:
        yield Finding(
            "pooler",
            Severity.BLOCKING,
            asked.connection.info.host,
            "the DSN leads through a connection pooler or proxy, and replication does not get through one",
            "Give the host and port of PostgreSQL itself.",
        )


def _recovery(asked: Question) -> Iterator[Finding]:
    if asked.server.in_recovery:
        yield Finding(
            "recovery",
            Severity.BLOCKING,
            asked.connection.info.host,
            "the server is a standby: a pipe needs the primary",
            "Give the primary's host (the writer endpoint).",
        )


def _wal_level(asked: Question) -> Iterator[Finding]:
    if asked.server.wal_level != "logical":
        problem = f"it is {asked.server.wal_level}, and logical decoding needs logical"
        yield Finding("wal_level", Severity.BLOCKING, "wal_level", problem, asked.provider.wal_level)


def _capacity(asked: Question) -> Iterator[Finding]:
    server = asked.server
    has_slot = slot.slot_state(asked.connection, asked.pipe.slot) is not None
    if not has_slot and server.slots >= server.most_slots:
        yield Finding(
            "replication slots",
            Severity.BLOCKING,
            "max_replication_slots",
            f"all {server.most_slots} replication slots are in use",
            f"Drop one that is not needed, or ALTER SYSTEM SET max_replication_slots = {server.slots + 4}; and restart the server.",
        )
    if server.senders >= server.most_senders:
        yield Finding(
            "wal senders",
            Severity.BLOCKING,
            "max_wal_senders",
            f"all {server.most_senders} WAL senders are in use",
            f"ALTER SYSTEM SET max_wal_senders = {server.senders + 4}; and restart the server.",
        )


def _wal_kept(asked: Question) -> Iterator[Finding]:
    keep = asked.server.keep_megabytes
    if keep is not None and 0 <= keep < ENOUGH_KEEP_MEGABYTES:
        yield Finding(
            "WAL kept for slots",
            Severity.WARNING,
            "max_slot_wal_keep_size",
            f"it is {keep} MB: a pipe that stands still for longer than that much WAL loses its slot and must copy again",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '200GB'; select pg_reload_conf();",
        )


# The role


def _replication(asked: Question) -> Iterator[Finding]:
    if not asked.server.may_replicate:
        role = asked.server.role
        fix = asked.provider.may_replicate.format(role=quoted(role))
        yield Finding("replication role", Severity.BLOCKING, role, "the role may not replicate", fix)


def _privileges(asked: Question) -> Iterator[Finding]:
    role = asked.server.role
    for schema, fix in dict.fromkeys((each.nspname, each.schema_sql) for each in asked.relations if not each.may_use):
        problem = f"the role {role} may not use the schema"
        yield Finding(
            "privileges", Severity.BLOCKING, schema, problem, f"GRANT USAGE ON SCHEMA {fix} TO {quoted(role)};"
        )
    for each in asked.relations:
        if not each.may_select:
            fix = f"GRANT SELECT ON TABLE {each.relation_sql} TO {quoted(role)};"
            yield Finding("privileges", Severity.BLOCKING, _name(each), f"the role {role} may not read it", fix)


def _row_security(asked: Question) -> Iterator[Finding]:
    for each in asked.relations:
        if each.row_security:
            yield Finding(
                "row-level security",
                Severity.BLOCKING,
                _name(each),
                f"its policies hide rows from the role {asked.server.role}",
                f"ALTER ROLE {quoted(asked.server.role)} BYPASSRLS;",
            )


# Publication and slot


def _publication(asked: Question) -> Iterator[Finding]:
    connection, pipe = asked.connection, asked.pipe
    rows = asked.fetch("publication", name=pipe.publication)
    given = bool(pipe.source.publication)
    if given:
        try:
            publication.ensure_publication(connection, pipe.publication, asked.tables, owned=False)
        except PublicationError as error:
            yield Finding(
                "publication", Severity.BLOCKING, pipe.publication, error.message, error.hint.removeprefix("Run: ")
            )
    elif not rows or publication.unpublished(
        asked.tables, publication.published(connection, pipe.publication), roots=_roots(asked)
    ):
        yield from _may_publish(asked, exists=bool(rows))
    if rows and not rows[0].complete:
        yield Finding(
            "publication",
            Severity.WARNING,
            pipe.publication,
            "it does not publish insert, update, delete and truncate alike: the destination keeps what is not published",
            f"ALTER PUBLICATION {quoted(pipe.publication)} SET (publish = 'insert, update, delete, truncate');",
        )


def _may_publish(asked: Question, *, exists: bool) -> Iterator[Finding]:
    """Penstock's own publication needs an owner of the tables."""
    role = asked.server.role
    if not exists and not asked.server.may_create:
        fix = f"GRANT CREATE ON DATABASE {quoted(asked.server.database)} TO {quoted(role)};"
        yield Finding("publication", Severity.BLOCKING, role, "the role may not create a publication", fix)
    members = {oid for table in asked.tables for oid in publication.members(table, roots=_roots(asked))}
    for each in asked.relations:
        if each.oid in members and not each.owned:
            yield Finding(
                "publication",
                Severity.BLOCKING,
                _name(each),
                f"the role {role} does not own it, and only an owner may publish it",
                f"GRANT {quoted(each.owner)} TO {quoted(role)}; or create the publication as {each.owner} and name it in the pipe",
            )


def _roots(asked: Question) -> bool:
    return bool(asked.server.version_number >= publication.ROOT_PUBLISHING)


def _slot(asked: Question) -> Iterator[Finding]:
    name = asked.pipe.slot
    state = slot.slot_state(asked.connection, name)
    if state is None:
        return
    drop = f"select pg_drop_replication_slot('{name}'); the tables are copied again then"
    if state.lost:
        yield Finding("slot", Severity.BLOCKING, name, f"the slot is of no use any more: {state.lost}", drop)
    elif state.plugin != slot.PLUGIN or state.database != asked.server.database:
        problem = f"it is a slot of database {state.database or '(none)'} with {state.plugin or 'no plugin'}, not {slot.PLUGIN} of this one"
        yield Finding("slot", Severity.BLOCKING, name, problem, "Name another slot in source.slot, or leave it empty.")
    elif state.active_pid:
        yield Finding(
            "slot",
            Severity.INFO,
            name,
            f"PID {state.active_pid} streams from it: the pipe is running, or somebody else uses the slot",
        )


def _name(relation: Any) -> str:
    return f"{relation.nspname}.{relation.relname}"


CHECKS: tuple[Callable[[Question], Iterator[Finding]], ...] = (
    _version,
    _pooler,
    _recovery,
    _wal_level,
    _capacity,
    _wal_kept,
    _replication,
    _privileges,
    _row_security,
    _publication,
    _slot,
    table_checks.keys,
    table_checks.left_out_columns,
    table_checks.left_out,
)
