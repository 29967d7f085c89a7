"""ClickHouse for tests: a server over HTTP and chDB inside this process, and a fresh database a test.

A test that takes ``place`` runs twice: embedded, and against the server.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from penstock.clickhouse.client import Client, quoted
from penstock.config import Destination, Secret
from tests.servers.clickhouse import PASSWORD, ClickHouseServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """A database of its own for one test, made already."""

    client: Client
    database: str
    destination: Destination

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of one query, in which ``{db}`` stands for the database."""
        return self.client.rows(query.replace("{db}", quoted(self.database)))

    def run(self, *statements: str) -> None:
        """Run statements, in which ``{db}`` stands for the database."""
        for each in statements:
            self.client.command(each.replace("{db}", quoted(self.database)))


@pytest.fixture(scope="session")
def clickhouse_server() -> Iterator[ClickHouseServer]:
    """A running server; tests that stop it start one of their own instead."""
    with ClickHouseServer() as server:
        yield server


@pytest.fixture(scope="session")
def _opened() -> Iterator[Callable[[Destination], Client]]:
    """One client a destination for the whole session: chDB has one folder a process, and is slow to open."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chdb-")))
        clients: dict[str, Client] = {}

        def opened(destination: Destination) -> Client:
            if destination.dsn not in clients:
                client = Client.open(destination, scratch=folder / "scratch")
                clients[destination.dsn] = stack.enter_context(closing(client))
            return clients[destination.dsn]

        yield opened


@pytest.fixture(scope="session")
def _chdb_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chdb-") as folder:
        yield Path(folder) / "data"


@pytest.fixture(params=["embedded", "server"])
def destination(request: pytest.FixtureRequest) -> Destination:
    """A destination without a database: embedded, then the server."""
    if request.param == "embedded":
        return Destination(dsn=f"chdb://{request.getfixturevalue('_chdb_folder')}")
    os.environ["PENSTOCK_TEST_PASSWORD"] = PASSWORD
    server = request.getfixturevalue("clickhouse_server")
    return Destination(dsn=server.dsn("penstock"), password=Secret(env="PENSTOCK_TEST_PASSWORD"))


@pytest.fixture
def place(destination: Destination, _opened: Callable[[Destination], Client]) -> Iterator[Place]:
    """A fresh database, dropped afterwards."""
    made = Place(_opened(destination), f"test_{os.getpid()}_{next(_numbers)}", destination)
    made.run("create database {db}")
    yield made
    made.run("drop database {db} sync")
