"""ClickHouse for tests: a server over HTTP and chDB inside this process, and a fresh database a test.

A test that takes ``place`` runs twice: embedded, and against the server. ``--ch 24.8`` makes that server an older one for a run.
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
from tests.plans import pipe_of, table_of
from tests.servers.clickhouse import PASSWORD, ClickHouseServer
from tests.servers.clickhouse_engines import NEWEST, SERVERS

from penstock.clickhouse import capabilities, ddl
from penstock.clickhouse.client import Client, quoted
from penstock.config import Destination, Secret
from penstock.decode import CopyDecoder
from penstock.plan import Plan, compile_plan
from penstock.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.batch import Batch

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

    def plan(
        self,
        table: str | Table,
        key: Sequence[str] = ("id",),
        *,
        full: bool = False,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Plan:
        """A plan of ``"id int4, note text"`` for this server; its target is ``t`` if ``options`` do not say otherwise."""
        source = table if isinstance(table, Table) else table_of(table, key, full=full)
        return compile_plan(source, pipe_of(options, **settings), capabilities.ask(self.client))

    def table(self, *arguments: Any, **options: Any) -> Plan:
        """The same, with its table made."""
        plan = self.plan(*arguments, **options)
        ddl.ensure_table(self.client, self.database, plan)
        return plan

    def run(self, *statements: str) -> None:
        """Run statements, in which ``{db}`` stands for the database."""
        for each in statements:
            self.client.command(each.replace("{db}", quoted(self.database)))


def batch_of(plan: Plan, *rows: Sequence[str | None], version: int = 0, deleted: bool = False) -> Batch:
    """Rows of PostgreSQL's text as a batch, all with one version."""
    decoder = CopyDecoder(plan, len(rows) + 1, 1 << 30, 1)
    decoder.receive("".join("\t".join(map(_copy_text, row)) + "\n" for row in rows).encode())
    decoder.finish()
    batch = decoder.take()
    assert batch is not None
    place = len(plan.columns)
    if version:
        batch.columns[place].values = version.to_bytes(16, "little") * len(rows)
    batch.columns[place + 1].values = bytes([deleted]) * len(rows)
    return batch


def _copy_text(value: str | None) -> str:
    if value is None:
        return r"\N"
    return value.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ch", default=NEWEST, choices=SERVERS, help="the ClickHouse release of the server")


@pytest.fixture(scope="session")
def clickhouse_server(request: pytest.FixtureRequest) -> Iterator[ClickHouseServer]:
    """A running server; tests that stop it start one of their own instead."""
    with ClickHouseServer(engine=request.config.getoption("--ch")) as server:
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
def chdb_folder() -> Iterator[Path]:
    """The folder of the embedded database: one a process."""
    with tempfile.TemporaryDirectory(prefix="chdb-") as folder:
        yield Path(folder) / "data"


def destination_of(server: ClickHouseServer, user: str = "penstock", **options: object) -> Destination:
    """A server as a destination; ``options`` go into the DSN."""
    os.environ["PENSTOCK_TEST_PASSWORD"] = PASSWORD
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return Destination(dsn=f"{server.dsn(user)}?{query}", password=Secret(env="PENSTOCK_TEST_PASSWORD"))


@pytest.fixture(params=["embedded", "server"])
def destination(request: pytest.FixtureRequest) -> Destination:
    """A destination without a database: embedded, then the server."""
    if request.param == "embedded":
        return Destination(dsn=f"chdb://{request.getfixturevalue('chdb_folder')}")
    return destination_of(request.getfixturevalue("clickhouse_server"))


@pytest.fixture
def place(destination: Destination, _opened: Callable[[Destination], Client]) -> Iterator[Place]:
    """A fresh database, dropped afterwards."""
    made = Place(_opened(destination), f"test_{os.getpid()}_{next(_numbers)}", destination)
    made.run("create database {db}")
    yield made
    made.run("drop database {db} sync")
