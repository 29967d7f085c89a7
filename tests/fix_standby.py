"""A primary with standbys, and a pipe from it by an endpoint that moves when one of them is promoted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import conninfo
from tests.fix_pipe import Case
from tests.fix_postgres import Database, until
from tests.servers.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg
    from tests.fix_proxy import Proxy
    from tests.servers.clickhouse import ClickHouseServer

NAME = "shop"
SLOT = "penstock_shop"
SYNCHRONIZES_SINCE = 17


@dataclass
class Cluster:
    """``primary`` takes writes; ``standbys`` follow it. The endpoint leads to the primary."""

    primary: PostgresServer
    standbys: list[PostgresServer]
    endpoint: Proxy
    gone: list[PostgresServer] = field(default_factory=list)

    @property
    def database(self) -> Database:
        return Database(self.primary, NAME)

    def connect(self, **parameters: Any) -> psycopg.Connection[Any]:
        """To whatever is the primary."""
        return self.database.connect(**parameters)

    def wait_until_followed(self) -> None:
        """What the primary has written, its standbys have replayed."""
        ((end,),) = self.database.fetch("select pg_current_wal_insert_lsn()::text")
        for each in self.standbys:
            until(lambda each=each: _one(each, "select pg_last_wal_replay_lsn() >= %s::pg_lsn", end))

    def let_wait_for(self, names: str) -> None:
        """From 17 on: the stream waits for the standbys with these physical slots."""
        self.database.execute(f"alter system set synchronized_standby_slots = '{names}'", "select pg_reload_conf()")

    def hold_back(self, standby: PostgresServer) -> None:
        """The standby receives nothing more: what is written from now on is lost when it is promoted."""
        standby.restart(primary_conninfo="")

    def synchronize(self) -> None:
        """The first standby gets the pipe's slot, which it has after a promotion (17 and later). It needs a pipe that moves the slot."""
        ready = "select count(*) from pg_replication_slots where slot_name = %s and synced and not temporary"

        def synchronized() -> bool:
            self.database.execute("select pg_log_standby_snapshot(), pg_logical_emit_message(true, 'test', '')")
            return bool(_one(self.standbys[0], ready, SLOT))

        until(synchronized)

    def make_slot_on_standby(self) -> None:
        """A slot for the pipe that only the first standby has (16 and later), from where it is now."""
        self.wait_until_followed()

        def make() -> None:
            Database(self.standbys[0], NAME).fetch("select pg_create_logical_replication_slot(%s, 'pgoutput')", SLOT)

        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(make)

            def is_made() -> bool:
                self.database.execute("select pg_log_standby_snapshot()")
                return made.done()

            until(is_made)
            made.result()

    def promote(self, *, lost: bool = False, old_lives: bool = False) -> None:
        """The primary ends in order, and the first standby takes its place; then the endpoint leads there.

        ``lost``: it dies at once, so that the standby may be behind. ``old_lives``: it does not end, and connections to it stay.
        """
        if lost:
            self.primary.kill()
        elif not old_lives:
            self.primary.stop()  # a standby has everything of an orderly end
        self.gone.append(self.primary)
        promoted = self.standbys.pop(0)
        assert _one(promoted, "select pg_promote(true, 30)")
        self.primary = promoted
        for each in self.standbys:
            each.restart(primary_conninfo=promoted.dsn())
        self.endpoint.target_port = self.primary.port
        if not old_lives:
            self.endpoint.cut()

    def remove(self) -> None:
        for each in (*self.gone, *self.standbys, self.primary):
            each.remove()


def _one(server: PostgresServer, query: str, *values: object) -> object:
    with server.connect() as connection:
        ((value,),) = connection.execute(query, values or None).fetchall()  # type: ignore[call-overload]
    return value


def make_cluster(version: int, proxy_to: Callable[[int], Proxy], *, standbys: int = 1) -> Cluster:
    """A primary with a database ``shop``, its standbys with the slots ``standby_1``, …, and what 17 needs to keep slots for a failover."""
    names = [f"standby_{number}" for number in range(1, standbys + 1)]
    primary = PostgresServer(version, {"wal_keep_size" if version >= 13 else "wal_keep_segments": "64"})
    primary.start()
    with primary.connect() as connection:
        connection.execute(f"create database {NAME}")
        for name in names:
            connection.execute("select pg_create_physical_replication_slot(%s, true)", (name,))
    primary.stop()
    keeps = {"hot_standby_feedback": "on", "wal_retrieve_retry_interval": "100ms"}
    if version >= SYNCHRONIZES_SINCE:
        keeps["sync_replication_slots"] = "on"
    made = [primary.standby(name, keeps) for name in names]
    for each in (primary, *made):
        each.start()
    cluster = Cluster(primary, made, proxy_to(primary.port))
    if version >= SYNCHRONIZES_SINCE:
        cluster.let_wait_for(names[0])
    return cluster


@pytest.fixture
def cluster(request: pytest.FixtureRequest, proxy_to: Callable[[int], Proxy]) -> Iterator[Cluster]:
    """A primary and a standby of the version that the test is parametrised with; two where it asks for ``two_standbys``."""
    made = make_cluster(request.param, proxy_to, standbys=2 if "two_standbys" in request.fixturenames else 1)
    yield made
    made.remove()


@pytest.fixture
def two_standbys() -> None:
    """Gives the cluster a second standby."""


@pytest.fixture
def followed(cluster: Cluster, clickhouse_server: ClickHouseServer, tmp_path: Path) -> Iterator[Case]:
    """A pipe from the cluster's endpoint into a server."""
    clickhouse_server.query("drop database if exists shop sync")
    dsn = conninfo.make_conninfo(cluster.database.dsn, port=cluster.endpoint.port)
    yield Case(tmp_path, cluster.database, clickhouse_server.dsn(), clickhouse_server, source_dsn=dsn)
    clickhouse_server.query("drop database if exists shop sync")
