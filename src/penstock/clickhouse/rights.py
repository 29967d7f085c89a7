"""What a pipe may do at the destination: its user's grants, then tries with tables that are removed again; part of ``checks.CHECKS``."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

from penstock.clickhouse import fit
from penstock.clickhouse.client import quoted
from penstock.errors import DestinationError, PenstockError
from penstock.finding import Finding, Fix, Severity
from penstock.language import N_, said, spoken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.clickhouse.client import Client

RIGHTS = (
    "SELECT",
    "INSERT",
    "ALTER COLUMN",
    "ALTER DELETE",
    "ALTER UPDATE",
    "ALTER SETTINGS",
    "CREATE TABLE",
    "CREATE VIEW",
    "DROP TABLE",
    "DROP VIEW",
)
"""What a pipe needs in its database; exchanging two tables needs no more, and up to 25 a DELETE is an UPDATE too."""
_MAKING = "CREATE DATABASE"
ENGINES = ("TABLE ENGINE ON ReplacingMergeTree", "TABLE ENGINE ON `Null`")
"""What it needs of servers that grant engines."""
SEEN = ("SELECT ON system.merges", "SELECT ON system.mutations", "SELECT ON system.processes")
"""What it looks at before it renames a column, and when a statement was given up."""
_WHY = N_("A pipe makes its tables and views, fills and alters them, and exchanges them for new ones.")
_USER = "select currentUser(), toInt64(getSetting('readonly'))"
DENIED = "ACCESS_DENIED"


def destination_rights(client: Client, database: str) -> Iterator[Finding]:
    """What the user may do: by its grants, then by doing it with tables that are removed again."""
    ((user, only_reads),) = client.rows(_USER)
    if only_reads == 1:
        yield _reader(f"{client.name}, {database}", user)
        return
    exists = fit.database_exists(client, database)
    missing = _missing(client, needed(database, made=exists))
    if missing:
        yield Finding(
            "destination_rights",
            Severity.BLOCKING,
            f"{client.name}, {database}",
            said("the user {user} lacks {rights}", user=user, rights=_listed(missing, database))
            if exists
            else said(
                "there is no database {database}, and the user {user} lacks {rights}",
                database=database,
                user=user,
                rights=_listed(missing, database),
            ),
            said(_WHY),
            grant(user, missing),
        )
    if lacking := _missing(client, SEEN):
        yield Finding(
            "destination_rights",
            Severity.WARNING,
            f"{client.name}, {database}",
            said("the user {user} lacks {rights}", user=user, rights=", ".join(lacking)),
            said("A pipe looks there before it renames a column, and whether a statement that it gave up has ended."),
            grant(user, lacking),
        )
    if not missing and (exists or missing is None):
        yield from _tried(client, database if exists else "default", user)


def needed(database: str, *, made: bool = True) -> list[str]:
    """Every right with what it is on; ``made`` says whether the database is there."""
    of_database = RIGHTS if made else (_MAKING, *RIGHTS)
    return [*(f"{right}{_on(database)}" for right in of_database), *ENGINES]


def _on(database: str) -> str:
    return f" ON {quoted(database)}.*"


def _listed(rights: Sequence[str], database: str) -> str:
    return ", ".join(each.removesuffix(_on(database)) for each in rights)


def grant(user: str, rights: Sequence[str]) -> Fix:
    """One statement for each object."""
    by_object: dict[str, list[str]] = {}
    for each in rights:
        right, _, what = each.partition(" ON ")
        by_object.setdefault(what, []).append(right)
    return Fix(
        sql=tuple(f"GRANT {', '.join(given)} ON {what} TO {quoted(user)};" for what, given in by_object.items()),
        advice=said("A user of users.xml is given its rights there."),
    )


def _reader(subject: str, user: str) -> Finding:
    return Finding(
        "destination_rights",
        Severity.BLOCKING,
        subject,
        said("the user {user} is read-only", user=user),
        said(_WHY),
        Fix(advice=said("Set readonly = 0 in the user's profile, or take another user.")),
    )


def _missing(client: Client, rights: Sequence[str]) -> list[str] | None:
    """The rights that are not granted; None from 24.8, which cannot be asked."""
    try:
        return [right for right in rights if not _granted(client, right)]
    except DestinationError as error:
        if "SYNTAX_ERROR" not in error.message:
            raise
        return None


def _granted(client: Client, right: str) -> bool:
    ((granted,),) = client.rows(f"check grant {right}")
    return bool(granted)


_TRIES = (
    (N_("make a table"), "create table {one} (id UInt8) engine = ReplacingMergeTree order by id"),
    (N_("make a table"), "create table {two} (id UInt8) engine = ReplacingMergeTree order by id"),
    (N_("insert"), "insert into {one} values (1)"),
    (N_("read"), "select count() from {one}"),
    (N_("add a column"), "alter table {one} add column note String"),
    (N_("delete rows"), "delete from {one} where id = 2"),
    (N_("exchange two tables"), "exchange tables {one} and {two}"),
    (N_("make a view"), "create view {view} as select id from {one}"),
    (N_("drop a table"), "drop table {view} sync"),
    (N_("drop a table"), "drop table {one} sync"),
    (N_("drop a table"), "drop table {two} sync"),
)


def _tried(client: Client, database: str, user: str) -> Iterator[Finding]:
    mark = f"penstock_check_{uuid.uuid4().hex}"
    names = {each: f"{quoted(database)}.{quoted(f'{mark}_{each}')}" for each in ("one", "two", "view")}
    try:
        for doing, statement in _TRIES:
            try:
                client.command(statement.format(**names), {}, subject=database)
            except PenstockError as error:
                fix = grant(user, needed(database)) if DENIED in error.message else Fix(advice=spoken(error.hint))
                yield _refused(f"{client.name}, {database}", said(doing), error, fix)
                return
    finally:
        for each in names.values():  # as far as that is possible
            with contextlib.suppress(PenstockError):
                client.command(f"drop table if exists {each} sync", subject=database)


def _refused(subject: str, doing: str, error: PenstockError, fix: Fix) -> Finding:
    problem = said("to {action} fails: {error}", action=doing, error=error.message)
    return Finding("destination_rights", Severity.BLOCKING, subject, problem, said(_WHY), fix)


def user_of(client: Client) -> str:
    """The user that we are there."""
    ((user, _),) = client.rows(_USER)
    return str(user)
