"""What the checks of the source look at: asked once, before the first of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import namedtuple_row

from penstock.postgres import QUERIES, providers
from penstock.postgres.connection import kept_bytes, translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.config import Pipe
    from penstock.postgres.connection import Connection
    from penstock.postgres.providers import Provider
    from penstock.table import Table


@dataclass(frozen=True, slots=True)
class Question:
    """Everything a check may look at."""

    connection: Connection
    pipe: Pipe
    tables: Sequence[Table]
    server: Any  # the row of the query "server"
    relations: Sequence[Any]  # rows of the query "privileges", of tables and leaves
    provider: Provider

    @classmethod
    def of(cls, connection: Connection, pipe: Pipe, tables: Sequence[Table]) -> Question:
        """Ask for what every check needs."""
        oids = [oid for table in tables for oid in (table.oid, *(leaf.oid for leaf in table.leaves))]
        provider = providers.named(pipe.source.provider) or providers.detect(connection, connection.info.host)
        (server,) = fetch(connection, "server")
        return cls(connection, pipe, tables, server, fetch(connection, "privileges", oids=oids), provider)

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
