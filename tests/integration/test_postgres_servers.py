"""The fixtures themselves: every version starts, with logical decoding, and a database goes away with its slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.fix_postgres import drop_database, satisfies
from tests.servers.postgres import PostgresServer

if TYPE_CHECKING:
    from tests.fix_postgres import Database


@pytest.mark.pg_all
def test_every_version_runs(database: Database) -> None:
    assert database.fetch("show wal_level") == [("logical",)]
    assert database.fetch("select current_setting('server_version_num')::int / 10000") == [(database.server.version,)]


def test_a_database_goes_with_its_slot(postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        connection.execute("create database doomed")
    with postgres.connect("doomed") as held:
        held.execute("select pg_create_logical_replication_slot('doomed', 'pgoutput')")
        drop_database(postgres, "doomed")
    with postgres.connect() as connection:
        assert connection.execute("select from pg_replication_slots where slot_name = 'doomed'").fetchall() == []
        assert connection.execute("select from pg_database where datname = 'doomed'").fetchall() == []


@pytest.mark.pg("18")
def test_kill_and_start_keep_what_was_committed(postgres: PostgresServer) -> None:
    with PostgresServer(postgres.version) as server:
        with server.connect() as connection:
            connection.execute("create table t as select 1 as id")
        port = server.port
        server.kill()
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            server.connect()
        server.start()
        assert server.port == port
        with server.connect() as connection:
            assert connection.execute("select id from t").fetchall() == [(1,)]
        server.restart(wal_level="replica")
        with server.connect() as connection:
            assert connection.execute("show wal_level").fetchone() == ("replica",)


def test_version_conditions() -> None:
    assert satisfies(14, ">= 14")
    assert not satisfies(13, ">= 14")
    assert satisfies(17, ">= 13, < 18")
    assert satisfies(12, "12")
    with pytest.raises(ValueError, match="not a version condition"):
        satisfies(12, "new")
