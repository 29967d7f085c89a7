"""What is asked of the destination before a pipe runs. A check returns findings; it never raises for what it finds."""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

from penstock.clickhouse import capabilities, fit
from penstock.clickhouse.client import quoted
from penstock.errors import DestinationError, PenstockError, TableError
from penstock.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.clickhouse.client import Client

NEARLY_FULL = 0.1
"""The free part of a disk below which it is mentioned: merges need room for the parts they write."""

_GRANTED = "check grant create database, create table, create view, insert, select, alter delete on {}.*"
_REPLICAS = """
select cluster, uniqExact(host_name, port) as replicas from system.clusters
where not startsWith(cluster, 'test_') group by cluster, shard_num having replicas > 1 limit 1"""
_DISKS = """
select name, free_space / total_space from system.disks
where total_space > 0 and free_space / total_space < {part:Float64}"""


def check(client: Client, database: str) -> list[Finding]:
    """Every question, until one shows that the others cannot be asked."""
    found = _reachable(client)
    if found:
        return found
    return [each for question in _QUESTIONS for each in _asked(question, client, database)]


def _asked(question: Callable[[Client, str], list[Finding]], client: Client, database: str) -> list[Finding]:
    """A question that the user may not ask is left out: what the pipe needs is tried by ``_writable``."""
    try:
        return question(client, database)
    except (DestinationError, TableError):
        return []


def _reachable(client: Client) -> list[Finding]:
    try:
        ((version,),) = client.rows("select version()")
    except DestinationError as error:
        return [Finding("destination reachable", Severity.BLOCKING, client.name, error.message, error.hint)]
    if problem := capabilities.too_old(version):
        return [Finding("destination version", Severity.BLOCKING, client.name, problem, "Upgrade ClickHouse.")]
    return []


def _writable(client: Client, database: str) -> list[Finding]:
    """A scratch table is made, filled and dropped in the database; where that is missing, its grants are asked for."""
    try:
        if fit.database_exists(client, database):
            _try_table(client, database)
            return []
        granted = _may_make(client, database)
    except PenstockError as error:
        return [
            Finding("destination writable", Severity.BLOCKING, f"{client.name}, {database}", error.message, error.hint)
        ]
    if granted:
        return []
    return [
        Finding(
            "destination writable",
            Severity.BLOCKING,
            f"{client.name}, {database}",
            f"there is no database {database}, and the user may not make it",
            f"GRANT ALL ON {quoted(database)}.* TO the user; or create the database, and grant the rest.",
        )
    ]


def _may_make(client: Client, database: str) -> bool:
    try:
        ((granted,),) = client.rows(_GRANTED.format(quoted(database)))
    except DestinationError as error:
        if "SYNTAX_ERROR" not in error.message:  # 24.8 does not know CHECK GRANT
            raise
        _try_table(client, "default")
        return True
    return bool(granted)


def _try_table(client: Client, database: str) -> None:
    table = f"{quoted(database)}.{quoted(f'penstock_check_{uuid.uuid4().hex}')}"
    client.command(f"create table {table} (id UInt8) engine = MergeTree order by id", subject=database)
    try:
        client.command(f"insert into {table} values (1)", {}, subject=database)  # noqa: S608 -- the name is ours
    except BaseException:
        with contextlib.suppress(PenstockError):
            client.command(f"drop table {table} sync", subject=database)
        raise
    client.command(f"drop table {table} sync", subject=database)


def _topology(client: Client, database: str) -> list[Finding]:
    """Plain tables behind a balancer live on one replica (clickhouse.md 23)."""
    if client.rows("select 1 from system.settings where name = 'cloud_mode' and value = '1'"):
        return []  # tables are shared there by themselves
    engines = client.rows("select engine from system.databases where name = {name:String}", {"name": database})
    if engines and engines[0][0] == "Replicated":
        return [
            Finding(
                "destination topology",
                Severity.BLOCKING,
                database,
                "it is a Replicated database, and the rows of plain tables would stay on one of its replicas",
                "Set database in [destination] to one with the engine Atomic, on a server that the pipe always reaches.",
            )
        ]
    clusters = client.rows(_REPLICAS)
    return [
        Finding(
            "destination topology",
            Severity.WARNING,
            name,
            f"the cluster has {replicas} replicas, and the pipe's tables live on the one that it connects to",
            "Point the destination's dsn to one replica, not to a balancer.",
        )
        for name, replicas in clusters
    ]


def _room(client: Client, _database: str) -> list[Finding]:
    return [
        Finding(
            "destination disk",
            Severity.WARNING,
            f"disk {name}",
            f"only {part:.0%} of it is free, and merging needs room",
            "Free or add space.",
        )
        for name, part in client.rows(_DISKS, {"part": NEARLY_FULL})
    ]


_QUESTIONS = (_writable, _topology, _room)
