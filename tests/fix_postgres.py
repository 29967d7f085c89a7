"""PostgreSQL for tests: servers of several versions, and a fresh database a test.

A test that takes ``postgres``, ``database`` or ``cluster`` runs once a version: on 12, 15 and 18, or on 12 to 18 where it is marked
``pg_all``; ``@pytest.mark.pg(">= 14")`` or ``pg("13, < 18")`` restricts them. ``--pg 15,18`` does so for a whole run. Every day whole
pipes run on 15 only, where a test has it; the other versions are slow.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from tests.servers.postgres import PostgresServer
from tests.servers.postgres_binaries import PACKAGES, PASSWORD

from penstock.config import Source
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres.connection import Connection

USUAL = (12, 15, 18)
EVERY_DAY = 15
_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg", default="", help="only these PostgreSQL versions, for example 15,18")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pg_all: runs on every PostgreSQL from 12 to 18")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, scope in (("postgres", "session"), ("cluster", "function")):
        if name in metafunc.fixturenames:
            versions = _versions(metafunc.definition)
            metafunc.parametrize(name, versions, indirect=True, scope=scope, ids=[f"pg{each}" for each in versions])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of an acceptance test that runs on several versions one is for every day."""
    runs: dict[str, list[pytest.Function]] = {}
    for item in items:
        chosen = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if "acceptance" in item.path.parts and {"postgres", "cluster"} & chosen.keys():
            runs.setdefault(re.sub(r"\bpg\d\d\b", "", item.nodeid), []).append(item)
    for same in runs.values():
        versions = {_version(item) for item in same}
        usual = EVERY_DAY if EVERY_DAY in versions else max(versions)
        for item in same:
            if _version(item) != usual:
                item.add_marker(pytest.mark.slow)


def _version(item: pytest.Function) -> Any:
    """Nothing to compare where --pg leaves none."""
    return next(item.callspec.params[name] for name in ("postgres", "cluster") if name in item.callspec.params)


def _versions(item: Any) -> list[int]:
    wanted = list(PACKAGES if item.get_closest_marker("pg_all") else USUAL)
    for marker in reversed(list(item.iter_markers("pg"))):  # the test's own says more than its module's
        fits = [each for each in PACKAGES if satisfies(each, str(marker.args[0]))]
        wanted = [each for each in wanted if each in fits] or fits
    if chosen := item.config.getoption("--pg"):
        wanted = [each for each in wanted if str(each) in chosen.split(",")]
    return wanted


def satisfies(version: int, spec: str) -> bool:
    """Whether a major version meets every condition of ``">= 13, < 18"``; a bare number means equal."""
    for condition in spec.split(","):
        found = re.fullmatch(r"\s*(>=|<=|==|!=|>|<)?\s*(\d+)\s*", condition)
        if not found:
            raise ValueError(f"not a version condition: {condition!r}")
        if not _COMPARE[found[1] or "=="](version, int(found[2])):
            return False
    return True


@dataclass(frozen=True)
class Database:
    """A database of its own for one test."""

    server: PostgresServer
    name: str

    @property
    def dsn(self) -> str:
        """The superuser's DSN of this database."""
        return self.server.dsn(self.name)

    def connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        return self.server.connect(self.name, **parameters)

    def execute(self, statements: str, *more: str) -> None:
        """Run statements, each string by itself in autocommit mode."""
        with self.connect() as connection:
            for each in (statements, *more):
                connection.execute(each)  # type: ignore[call-overload]

    def fetch(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of one query."""
        with self.connect() as connection:
            return connection.execute(query, values or None).fetchall()  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="session")
def postgres_servers() -> Iterator[Callable[[int], PostgresServer]]:
    """Gives the running server of a version, started at its first use."""
    running: dict[int, PostgresServer] = {}

    def server(version: int) -> PostgresServer:
        if version not in running:
            running[version] = PostgresServer(version)
        if not running[version].running:
            running[version].start()
        return running[version]

    yield server
    for each in running.values():
        each.remove()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, postgres_servers: Callable[[int], PostgresServer]) -> PostgresServer:
    """The running server of the version that the test is parametrised with."""
    return postgres_servers(request.param)


@pytest.fixture
def database(postgres: PostgresServer, postgres_servers: Callable[[int], PostgresServer]) -> Iterator[Database]:
    """A fresh database; dropped afterwards together with its sessions, prepared transactions and slots."""
    server = postgres_servers(postgres.version)  # a test before may have stopped it
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with server.connect() as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    yield Database(server, name)
    drop_database(postgres_servers(postgres.version), name)


def drop_database(server: PostgresServer, name: str) -> None:
    """Drop a database with everything that holds on to it."""
    with server.connect(name) as connection:
        for (gid,) in connection.execute(
            "select gid from pg_prepared_xacts where database = current_database()"
        ).fetchall():
            connection.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
    with server.connect() as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
            (name,),
        )
        slots = connection.execute("select slot_name from pg_replication_slots where database = %s", (name,)).fetchall()
        for (slot,) in slots:
            drop_slot(connection, slot)
        connection.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))


def drop_slot(connection: psycopg.Connection[Any], slot: str) -> None:
    """A sender that was just terminated may hold its slot for a moment: keep at it until it lets go."""
    for _ in range(200):
        with contextlib.suppress(psycopg.errors.UndefinedObject):
            try:
                connection.execute("select pg_drop_replication_slot(%s)", (slot,))
            except psycopg.errors.ObjectInUse:
                connection.execute(
                    "select pg_terminate_backend(active_pid), pg_sleep(0.02) from pg_replication_slots where slot_name = %s",
                    (slot,),
                )
                continue
        return
    raise RuntimeError(f"slot {slot} stays in use")


@pytest.fixture
def connector(database: Database) -> Connector:
    """Penstock's own way to the database."""
    return Connector(Source(dsn=database.dsn), "penstock test")


@pytest.fixture
def connection(connector: Connector) -> Iterator[Connection]:
    """A connection with Penstock's session settings."""
    with contextlib.closing(connector.connect()) as connection:
        yield connection


@pytest.fixture
def role(database: Database) -> Iterator[Callable[..., str]]:
    """Makes roles that can log in with the servers' password, such as ``role("replication")``; dropped afterwards."""
    made: list[str] = []

    def make(attributes: str = "") -> str:
        name = f"role_{os.getpid()}_{next(_numbers)}"
        with database.connect() as connection:
            connection.execute(
                sql.SQL("create role {} login password {} {}").format(  # type: ignore[call-overload]
                    sql.Identifier(name), PASSWORD, sql.SQL(attributes)
                )
            )
        made.append(name)
        return name

    yield make
    with database.connect() as connection:
        for name in made:
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", (name,))
            connection.execute(sql.SQL("drop owned by {0} cascade").format(sql.Identifier(name)))
            connection.execute(sql.SQL("drop role {0}").format(sql.Identifier(name)))


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What ``condition`` returns as soon as it is true; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {condition}")
        time.sleep(0.01)
    return found
