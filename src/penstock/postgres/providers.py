"""Who runs the source: rows of facts, not a class tree. What differs between providers is what the operator has to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.postgres import QUERIES
from penstock.postgres.connection import translated

if TYPE_CHECKING:
    from penstock.postgres.connection import Connection


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. ``mark`` is a setting or a function that only its servers have; ``host`` matches its host names."""

    name: str  # as in source.provider
    title: str
    wal_level: str  # how logical decoding is switched on
    may_replicate: str  # the statement that lets {role} replicate
    mark: str = ""
    host: str = ""


PROVIDERS = (
    Provider(
        name="aurora",
        title="Amazon Aurora",
        wal_level="Set rds.logical_replication = 1 in the DB cluster parameter group, apply it to the cluster, and reboot the writer.",
        may_replicate="GRANT rds_replication TO {role};",
        mark="aurora_version",
        host=r"\.cluster-(ro-)?[^.]+\.[^.]+\.rds\.amazonaws\.com",
    ),
    Provider(
        name="rds",
        title="Amazon RDS",
        wal_level="Set rds.logical_replication = 1 in the instance's DB parameter group, and reboot the instance.",
        may_replicate="GRANT rds_replication TO {role};",
        mark="rds.logical_replication",
        host=r"\.rds\.amazonaws\.com",
    ),
    Provider(
        name="azure",
        title="Azure Database for PostgreSQL",
        wal_level="Set the server parameter wal_level to LOGICAL, save, and restart the server.",
        may_replicate="ALTER ROLE {role} WITH REPLICATION;",
        mark="azure.extensions",
        host=r"\.postgres\.database\.azure\.com",
    ),
    Provider(
        name="generic",
        title="PostgreSQL",
        wal_level="ALTER SYSTEM SET wal_level = logical; then restart the server.",
        may_replicate="ALTER ROLE {role} WITH REPLICATION;",
    ),
)
"""The first that fits; the last fits always."""


def detect(connection: Connection, host: str) -> Provider:
    """The provider, by what the server shows of itself, else by the name of its host."""
    with translated("asking who runs the source"):
        row = connection.execute(QUERIES["marks"], {"names": [each.mark for each in PROVIDERS if each.mark]}).fetchone()
    marks = set(row[0]) if row else set()
    by_mark = (each for each in PROVIDERS if each.mark in marks)
    by_host = (each for each in PROVIDERS if each.host and re.search(each.host, host))
    return next(by_mark, None) or next(by_host, None) or PROVIDERS[-1]


def named(name: str) -> Provider | None:
    """The provider of that name, None where there is none (yet)."""
    return next((each for each in PROVIDERS if each.name == name), None)
