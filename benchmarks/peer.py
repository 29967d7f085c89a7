"""The peer: ClickHouse's own MaterializedPostgreSQL, in a server of the same kind as Penstock's destination.

It takes a database's tables by a snapshot, then polls its slot through SQL (ClickHouse manual, MaterializedPostgreSQL).
Frozen, it does not move; its slot keeps the WAL for it. It knows no ``stream open``: its clock runs from CREATE DATABASE, or from
the moment it is let go.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.servers.postgres_binaries import PASSWORD, SUPERUSER

from benchmarks.stage import Stage, wait_until
from benchmarks.workload import sums_query

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_SECONDS = 600
CONTENDER = "MaterializedPostgreSQL"


class Peer:
    """One table, followed by MaterializedPostgreSQL. Its server must be awake for every method."""

    def __init__(self, stage: Stage, table: str) -> None:
        self._stage, self._table = stage, table
        self._server = stage.peer

    @property
    def relation(self) -> str:
        """The table in ClickHouse."""
        return f"peer.{self._table}"

    def create(self) -> None:
        """Begin to copy."""
        address = f"127.0.0.1:{self._stage.source.port}"
        self._server.query(
            f"create database peer engine = MaterializedPostgreSQL('{address}', 'postgres', '{SUPERUSER}', '{PASSWORD}')"
            f" settings materialized_postgresql_tables_list = '{self._table}'"
        )

    def wait_rows(self, rows: int) -> None:
        """Wait until it has that many rows."""
        self._wait(
            lambda: self._server.query(f"select count() from {self.relation}").strip() == str(rows), f"{rows} rows"
        )

    def wait_sums(self, last_id: int, expected: str) -> None:
        """Wait until the last row is there, and then until everything is: the sums are not cheap to ask for."""
        seen = f"select count() from {self.relation} where id = {last_id}"
        self._wait(lambda: self._server.query(seen).strip() == "1", f"row {last_id}")
        query = sums_query(self._table, self.relation)
        self._wait(lambda: self._server.query(query).strip() == expected, f"equal sums of {self._table}")

    def drop(self) -> None:
        """Remove the database, its slot and its publication."""
        with contextlib.suppress(RuntimeError):
            self._server.query("drop database if exists peer sync")
        self._stage.drop_slot("postgres")  # named after the source's database
        self._stage.connection.execute("drop publication if exists postgres_ch_publication")

    def _wait(self, done: object, what: str) -> None:
        def told() -> bool:
            try:
                return bool(done())  # type: ignore[operator]
            except RuntimeError:  # the table is not there yet
                return False

        wait_until(told, seconds=PATIENCE_SECONDS, what=f"{CONTENDER}: {what}")


@contextlib.contextmanager
def followed(stage: Stage, table: str) -> Iterator[Peer]:
    """The peer, which has copied the empty table and is frozen again; removed at the end."""
    peer = Peer(stage, table)
    try:
        with stage.awake(stage.peer):
            peer.create()
            peer.wait_rows(0)
        yield peer
    finally:
        with stage.awake(stage.peer):
            peer.drop()
