"""What is asked of the destination before a pipe runs. A check returns findings; it never raises for what it finds."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

from penstock.clickhouse import capabilities, fit
from penstock.clickhouse.client import quoted
from penstock.clickhouse.writer import SETTINGS
from penstock.errors import DestinationError, PenstockError, TableError
from penstock.finding import Finding, Fix, Severity
from penstock.language import N_, said, spoken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.clickhouse.client import Client

NEARLY_FULL = 0.1
"""The free part of a disk below which it is mentioned: merges need room for the parts they write."""

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
SEEN = ("SELECT ON system.merges", "SELECT ON system.processes")
"""What it looks at before it renames a column, and when a statement was given up."""
_WHY = N_("A pipe makes its tables and views, fills and alters them, and exchanges them for new ones.")
_LOOKED_AT = {"destination_topology": ["SELECT ON system.clusters"], "destination_disk": ["SELECT ON system.disks"]}
"""What only checks look at."""
DENIED = "ACCESS_DENIED"
_NO_EXCHANGE = ("Ordinary", "Lazy", "Memory")
_REPLICAS = """
select cluster, uniqExact(host_name, port) as replicas from system.clusters
where not startsWith(cluster, 'test_') group by cluster, shard_num having replicas > 1 limit 1"""
_DISKS = """
select name, free_space / total_space from system.disks
where total_space > 0 and free_space / total_space < {part:Float64}"""
_FIXED = """
select name, value from system.settings
where readonly = 1 and name in {names:Array(String)} and getSetting('readonly') != 1 order by name"""
_USER = "select currentUser(), toInt64(getSetting('readonly'))"


def check(client: Client, database: str) -> list[Finding]:
    """Every question, until one shows that the others cannot be asked."""
    found = _reachable(client)
    if found:
        return found
    return [each for question in CHECKS for each in _asked(question, client, database)]


def _asked(question: Callable[[Client, str], Iterator[Finding]], client: Client, database: str) -> list[Finding]:
    try:
        return list(question(client, database))
    except (DestinationError, TableError) as error:
        return [
            Finding(
                question.__name__,
                Severity.WARNING,
                client.name,
                said("this could not be checked: {error}", error=error.message),
                fix=_let_look(client, question.__name__) if DENIED in error.message else Fix(advice=spoken(error.hint)),
            )
        ]


def _let_look(client: Client, check: str) -> Fix:
    """The right to see what a check looks at."""
    ((user, _),) = client.rows(_USER)
    return _grant(user, _LOOKED_AT.get(check, ()))


def unreachable(name: str, error: DestinationError) -> Finding:
    """A destination that does not answer."""
    why = said("Nothing else could be asked there.")
    return Finding(
        "destination_reachable", Severity.BLOCKING, name, spoken(error.message), why, Fix(advice=spoken(error.hint))
    )


def _reachable(client: Client) -> list[Finding]:
    try:
        ((version,),) = client.rows("select version()")
    except DestinationError as error:
        return [unreachable(client.name, error)]
    if capabilities.too_old(version):
        oldest = ".".join(map(str, capabilities.OLDEST))
        return [
            Finding(
                "destination_version",
                Severity.BLOCKING,
                client.name,
                said("it is version {version}, and Penstock needs {oldest} or newer", version=version, oldest=oldest),
                fix=Fix(advice=said("Upgrade ClickHouse.")),
            )
        ]
    return []


# Rights


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
            _grant(user, missing),
        )
    if lacking := _missing(client, SEEN):
        yield Finding(
            "destination_rights",
            Severity.WARNING,
            f"{client.name}, {database}",
            said("the user {user} lacks {rights}", user=user, rights=", ".join(lacking)),
            said("A pipe looks there before it renames a column, and whether a statement that it gave up has ended."),
            _grant(user, lacking),
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


def _grant(user: str, rights: Sequence[str]) -> Fix:
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
                fix = _grant(user, needed(database)) if DENIED in error.message else Fix(advice=spoken(error.hint))
                yield _refused(f"{client.name}, {database}", said(doing), error, fix)
                return
    finally:
        for each in names.values():  # as far as that is possible
            with contextlib.suppress(PenstockError):
                client.command(f"drop table if exists {each} sync", subject=database)


def _refused(subject: str, doing: str, error: PenstockError, fix: Fix) -> Finding:
    problem = said("to {action} fails: {error}", action=doing, error=error.message)
    return Finding("destination_rights", Severity.BLOCKING, subject, problem, said(_WHY), fix)


# What it is


def destination_engine(client: Client, database: str) -> Iterator[Finding]:
    """A database whose tables cannot be exchanged, or live on one replica (clickhouse.md 23)."""
    engines = client.rows("select engine from system.databases where name = {name:String}", {"name": database})
    engine = engines[0][0] if engines else ""
    if engine in _NO_EXCHANGE:
        yield Finding(
            "destination_engine",
            Severity.BLOCKING,
            database,
            said("its engine is {engine}, which cannot exchange tables", engine=engine),
            said("A table that is copied again takes the place of the old one in one step."),
            Fix(advice=said("Set database in [destination] to one with the engine Atomic.")),
        )
    if engine == "Replicated" and not _is_cloud(client):
        yield Finding(
            "destination_topology",
            Severity.BLOCKING,
            database,
            said("it is a Replicated database"),
            said("The rows of plain tables would stay on one of its replicas."),
            Fix(
                advice=said(
                    "Set database in [destination] to one with the engine Atomic, on a server that the pipe always reaches."
                )
            ),
        )


def destination_topology(client: Client, _database: str) -> Iterator[Finding]:
    """Plain tables behind a balancer live on one replica."""
    if _is_cloud(client):
        return
    for name, replicas in client.rows(_REPLICAS):
        yield Finding(
            "destination_topology",
            Severity.WARNING,
            name,
            said("the cluster has {replicas} replicas", replicas=replicas),
            said("The pipe's tables live on the one that it connects to."),
            Fix(advice=said("Point the destination's dsn to one replica, not to a balancer.")),
        )


def _is_cloud(client: Client) -> bool:
    """Tables are shared there by themselves."""
    return bool(client.rows("select 1 from system.settings where name = 'cloud_mode' and value = '1'"))


def destination_disk(client: Client, _database: str) -> Iterator[Finding]:
    """Whether there is room."""
    for name, part in client.rows(_DISKS, {"part": NEARLY_FULL}):
        yield Finding(
            "destination_disk",
            Severity.WARNING,
            said("disk {name}", name=name),
            said("only {part} of it is free", part=f"{part:.0%}"),
            said("Merging needs room for the parts that it writes."),
            Fix(advice=said("Free or add space.")),
        )


def destination_settings(client: Client, _database: str) -> Iterator[Finding]:
    """Settings that the user may not change, with values that would change or lose rows. A user who may only read is told otherwise."""
    for name, value in client.rows(_FIXED, {"names": list(SETTINGS)}):
        if value != str(SETTINGS[name]):
            yield Finding(
                "destination_settings",
                Severity.BLOCKING,
                name,
                said("it is {value}, and the user may not change it", value=value),
                said("Rows would be lost or changed on their way in."),
                Fix(
                    advice=said(
                        "Set {name} = {needed} in the user's profile, or take its constraint away.",
                        name=name,
                        needed=SETTINGS[name],
                    )
                ),
            )


CHECKS: tuple[Callable[[Client, str], Iterator[Finding]], ...] = (
    destination_rights,
    destination_engine,
    destination_topology,
    destination_disk,
    destination_settings,
)
