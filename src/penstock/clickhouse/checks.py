"""What is asked of the destination before a pipe runs. A check returns findings; it never raises for what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.clickhouse import capabilities, rights
from penstock.clickhouse.writer import SETTINGS
from penstock.errors import DestinationError, TableError
from penstock.finding import Finding, Fix, Severity
from penstock.language import said, spoken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.clickhouse.client import Client

NEARLY_FULL = 0.1
"""The free part of a disk below which it is mentioned: merges need room for the parts they write."""

_LOOKED_AT = {"destination_topology": ["SELECT ON system.clusters"], "destination_disk": ["SELECT ON system.disks"]}
"""What only checks look at."""
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
                fix=_let_look(client, question.__name__)
                if rights.DENIED in error.message
                else Fix(advice=spoken(error.hint)),
            )
        ]


def _let_look(client: Client, check: str) -> Fix:
    """The right to see what a check looks at."""
    return rights.grant(rights.user_of(client), _LOOKED_AT.get(check, ()))


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
    rights.destination_rights,
    destination_engine,
    destination_topology,
    destination_disk,
    destination_settings,
)
