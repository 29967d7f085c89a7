"""What the checks of the source look at: asked once, before the first of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import namedtuple_row

from penstock.finding import Fix
from penstock.language import said
from penstock.postgres import QUERIES, providers
from penstock.postgres.connection import kept_bytes, translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.config import Pipe
    from penstock.postgres.connection import Connection
    from penstock.postgres.providers import Provider, Recognised
    from penstock.table import Table

_SETTINGS = (
    "idle_replication_slot_timeout",
    "max_connections",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "superuser_reserved_connections",
    "wal_level",
    "wal_sender_timeout",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in its base unit."""

    value: str
    pending: bool  # another value waits for a restart

    @property
    def number(self) -> int:
        """The value of one that is a number."""
        return int(self.value)


@dataclass(frozen=True, slots=True)
class Question:
    """Everything a check may look at."""

    connection: Connection
    pipe: Pipe
    tables: Sequence[Table]
    server: Any  # the row of the query "server"
    settings: dict[str, Setting]
    relations: Sequence[Any]  # rows of the query "privileges", of tables and leaves
    recognised: Recognised
    asked_at: float  # time.monotonic() of the server's row
    skew_seconds: float  # by how much the server's clock is ahead of ours, at least
    standbys: Sequence[tuple[str, str]] = ()  # that were named to be asked too: for people, and as DSNs

    @classmethod
    def of(
        cls, connection: Connection, pipe: Pipe, tables: Sequence[Table], standbys: Sequence[tuple[str, str]] = ()
    ) -> Question:
        """Ask for what every check needs."""
        oids = [oid for table in tables for oid in (table.oid, *(leaf.oid for leaf in table.leaves))]
        chosen = providers.named(pipe.source.provider)
        recognised = (
            providers.Recognised(chosen) if chosen else providers.recognise(connection, connection.info.host or "")
        )
        before = time.time()
        (server,) = fetch(connection, "server")
        after = time.time()
        names = [*_SETTINGS, *(parameter.name for parameter in recognised.provider.logical)]
        return cls(
            connection=connection,
            pipe=pipe,
            tables=tables,
            server=server,
            settings={
                row.name: Setting(row.setting, row.pending) for row in fetch(connection, "settings", names=names)
            },
            relations=fetch(connection, "privileges", oids=oids, administrator=recognised.provider.administrator),
            recognised=recognised,
            asked_at=time.monotonic(),
            skew_seconds=server.clock - min(max(server.clock, before), after),
            standbys=standbys,
        )

    @property
    def provider(self) -> Provider:
        """Who runs the source."""
        return self.recognised.provider

    @property
    def major(self) -> int:
        """PostgreSQL's version."""
        return int(self.server.version_number) // 10000

    @property
    def role(self) -> str:
        """The role, as it stands in a statement."""
        return quoted(self.server.role)

    @property
    def facts(self) -> dict[str, str]:
        """What the provider's fixes are filled with."""
        return self.provider.facts(self.connection.info.host or "", role=self.role, major=str(self.major))

    def set(self, name: str, value: str, *, restarts: bool) -> Fix:
        """How a parameter is set at this provider."""
        fix = self.provider.set_parameter(providers.Parameter(name, value, restarts=restarts), self.facts)
        return fix or Fix(advice=said("The provider sets it, and lets nobody change it."))

    def fetch(self, query: str, **parameters: object) -> list[Any]:
        """The rows of a named query."""
        return fetch(self.connection, query, **parameters)


def fetch(connection: Connection, query: str, **parameters: object) -> list[Any]:
    """The rows of a named query. Raises SourceError."""
    with translated(f"asking for {query}"), kept_bytes(connection):
        cursor = connection.cursor(row_factory=namedtuple_row)
        return cursor.execute(QUERIES[query], parameters).fetchall()


def quoted(name: str) -> str:
    """An identifier in a statement for people to run."""
    return '"' + name.replace('"', '""') + '"'


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names, the first of them where there are many."""
    every = list(names)
    more = len(every) - most
    return ", ".join(every[:most]) + (f" … +{more}" if more > 0 else "")
