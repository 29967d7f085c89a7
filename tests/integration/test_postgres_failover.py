"""What a failover needs of PostgreSQL: slots that standbys keep, timelines, and the state of a sender."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.fix_postgres import Database, until

from penstock.config import Source
from penstock.errors import SourceMovedError, SourceRefusedError
from penstock.lsn import Lsn
from penstock.pipeline.checkpoint import PipeRecord
from penstock.pipeline.failover import Guard
from penstock.postgres import slot
from penstock.postgres.connection import Connector
from penstock.postgres.stream import Stream
from penstock.postgres.timeline import Timeline, timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_standby import Cluster
    from tests.servers.postgres import PostgresServer

    from penstock.postgres.connection import Connection

FAILOVER_SINCE = 17


def test_standbys_may_keep_our_slots_from_17_on(
    database: Database, connection: Connection, connector: Connector
) -> None:
    name = f"slot_{database.name}"
    can = database.server.version >= FAILOVER_SINCE
    slot.create_slot(connection, name, report=lambda _: None)
    made = slot.slot_state(connection, name)
    assert made is not None
    assert made.failover == (True if can else None)
    slot.drop_slot(connection, name)
    database.execute(f"select pg_create_logical_replication_slot('{name}', 'pgoutput')")  # as somebody else makes it
    with contextlib.closing(connector.replication({})) as replication:
        before = slot.slot_state(replication, name)
        slot.let_fail_over(replication, name)
        after = slot.slot_state(replication, name)
    assert before is not None
    assert after is not None
    assert (before.failover, after.failover) == ((False, True) if can else (None, None))


REFUSALS = (
    "revoke execute on function pg_control_system() from public",
    "revoke execute on function pg_walfile_name(pg_lsn) from public",
)


def test_a_server_whose_functions_do_not_say_who_it_is(database: Database, role: Callable[..., str]) -> None:
    """As Aurora may: the replication protocol says the same."""
    name = role("replication")
    connector = Connector(Source(dsn=database.server.dsn(database.name, user=name)), "penstock test")
    with contextlib.closing(connector.connect()) as one, contextlib.closing(connector.replication({})) as other:
        told = slot.system(one)
        for refusal in REFUSALS:
            database.execute(refusal)
            assert slot.system(one) == slot.system(other) == told
        database.execute(f"alter role {name} noreplication")
        with pytest.raises(SourceRefusedError, match=r"(?i)start wal ?sender"):
            slot.system(one)


@pytest.mark.pg("== 15")
def test_a_standby_whose_functions_do_not_say_who_it_is(cluster: Cluster) -> None:
    (standby,) = cluster.standbys
    with cluster.connect() as admin:
        admin.execute("create role weak login replication password 'penstock'")
        told = slot.system(admin)
        for refusal in (*REFUSALS, "revoke execute on function pg_control_checkpoint() from public"):
            admin.execute(refusal)
    cluster.wait_until_followed()
    dsn = standby.dsn("shop", user="weak", password="penstock")
    with contextlib.closing(Connector(Source(dsn=dsn), "penstock test").connect()) as connection:
        found = slot.system(connection)
    assert found == replace(told, in_recovery=True, server=found.server)
    assert found.server != told.server


@pytest.mark.pg("== 15")
def test_a_sender_that_waits_is_told_from_one_at_work(database: Database, connection: Connection) -> None:
    with database.connect() as other, ThreadPoolExecutor(1) as pool:
        session = slot.this_session(other)
        work = pool.submit(other.execute, "select pg_sleep(60)")
        until(lambda: slot.is_at_work(connection, session))
        until(lambda: other.cancel_safe() or work.done())  # again, if it came before the statement
        with pytest.raises(psycopg.errors.QueryCanceled):
            work.result()
    until(lambda: not slot.is_at_work(connection, session))  # it is gone


def test_a_sender_without_news_is_not_at_work(database: Database, connection: Connection, connector: Connector) -> None:
    """Its state has another name in every version."""
    name = f"slot_{database.name}"
    database.execute("create publication p for all tables")
    slot.create_slot(connection, name, report=lambda _: None)

    async def work() -> None:
        opened = await Stream.open(connector, name, "p")
        try:
            await asyncio.to_thread(until, lambda: not slot.is_at_work(connection, opened.session))
        finally:
            await opened.close()

    asyncio.run(work())


@pytest.mark.pg("== 15")
@pytest.mark.usefixtures("two_standbys")
def test_a_promotion_begins_a_timeline(cluster: Cluster) -> None:
    """Two standbys can both be promoted to a timeline of one number: their histories tell which one the stream follows."""

    def asked(server: PostgresServer) -> Timeline:
        dsn = Database(server, cluster.database.name).dsn
        with contextlib.closing(Connector(Source(dsn=dsn), "t").replication({})) as replication:
            return timeline(replication)

    assert asked(cluster.primary) == Timeline(1)
    other = cluster.standbys.pop()
    cluster.gone.append(other)
    cluster.hold_back(other)
    cluster.database.execute("create table t (id int)")
    ((end,),) = cluster.database.fetch("select pg_current_wal_insert_lsn()::text")
    cluster.promote()
    second = asked(cluster.primary)
    assert (second.number, [number for number, _ in second.before]) == (2, [1])
    assert second.parts_from(Timeline(1)) >= Lsn.parse(end)
    with other.connect() as connection:
        connection.execute("select pg_promote()")
    assert asked(other).number == 2
    with cluster.connect() as connection, Database(other, cluster.database.name).connect() as elsewhere:
        identity = slot.system(connection)
        record = PipeRecord("shop", "slot", "publication", identity.system_identifier, second, Lsn(0))
        guard = Guard(record, standby=False)
        guard(connection)
        guard(connection)
        with pytest.raises(SourceMovedError):
            guard(elsewhere)
