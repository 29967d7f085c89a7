"""The checks of a failover: each bad situation is made on a primary and its standby, and its fix applied as printed."""

from __future__ import annotations

import contextlib
import re
import shlex
from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from tests.findings import check, named, one, pipe_of, statements
from tests.fix_postgres import Database, until
from tests.scripts import ROOT

from penstock.config import Source
from penstock.errors import ConfigError
from penstock.finding import Severity
from penstock.postgres import standby_checks
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from tests.fix_standby import Cluster
    from tests.servers.postgres import PostgresServer

    from penstock.config import Pipe
    from penstock.finding import Finding

SLOT = "penstock_shop"
CHECKS = (
    "failover",
    "synchronized_standby_slots",
    "standby",
    "standby slot",
    "sync_replication_slots",
    "hot_standby_feedback",
    "primary_slot_name",
    "primary_conninfo",
)


def both(cluster: Cluster, **source: str) -> Pipe:
    """A pipe whose DSN names both servers."""
    ports = f"{cluster.standbys[0].port},{cluster.primary.port}"
    dsn = cluster.primary.dsn("shop", host="127.0.0.1,127.0.0.1", port=ports, target_session_attrs="read-write")
    return pipe_of(dsn, **source)


def mend(server: PostgresServer, *found: Finding) -> None:
    """Run the fixes as psql would, which runs what the query before ``\\gexec`` gives."""
    database = Database(server, "postgres")
    for statement in statements(found):
        query, sign, _ = statement.partition(" \\gexec")
        database.execute(*(row[0] for row in database.fetch(query)) if sign else (query,))


def is_followed(cluster: Cluster) -> bool:
    return cluster.database.fetch(
        "select count(*) from pg_replication_slots where slot_type = 'physical' and active"
    ) == [(1,)]


@pytest.mark.pg("== 15")
def test_before_17_only_an_extension_keeps_the_slot(cluster: Cluster) -> None:
    pipe = pipe_of(cluster.database.dsn)
    until(lambda: is_followed(cluster))
    found = one(pipe, "failover")
    assert (found.subject, found.severity) == (SLOT, Severity.WARNING)
    assert found.problem == "standbys follow this server (1), and none of them keeps the slot"
    assert "pg_failover_slots" in found.fix.advice
    assert named(pipe_of(cluster.database.dsn, provider="aurora"), *CHECKS) == []  # its storage keeps it
    cluster.primary.restart(**{"pg_failover_slots.synchronize_slot_names": "name_like:%"})  # as the extension brings it
    until(lambda: is_followed(cluster))
    assert named(pipe, *CHECKS) == []


@pytest.mark.pg("== 17")
def test_what_17_needs_on_both_servers(cluster: Cluster) -> None:
    (standby,) = cluster.standbys
    follows = cluster.primary.dsn().replace("dbname=postgres", "")
    Database(standby, "postgres").execute(sql.SQL("alter system set primary_conninfo = {}").format(follows).as_string())
    for name in ("hot_standby_feedback", "sync_replication_slots", "primary_slot_name", "primary_conninfo"):
        del standby.settings[name]
    cluster.let_wait_for("")
    standby.restart()
    until(lambda: cluster.database.fetch("select count(*) from pg_stat_replication") == [(1,)])
    pipe = both(cluster)
    found = {each.check: each for each in named(pipe, *CHECKS)}
    assert set(found) == {"synchronized_standby_slots", *CHECKS[4:]}
    assert {each.subject for each in found.values()} == {"synchronized_standby_slots", f"127.0.0.1:{standby.port}"}
    assert "primary_slot_name" in found["synchronized_standby_slots"].fix.advice  # it follows without one
    (make,) = re.findall(r"SELECT .*;", found["primary_slot_name"].fix.advice)
    cluster.database.execute("select pg_drop_replication_slot('standby_1')", make)
    mend(standby, *(found[each] for each in CHECKS[4:]))
    until(lambda: is_followed(cluster))
    (last,) = named(pipe, *CHECKS)
    assert "standby_1" in last.problem
    mend(cluster.primary, last)
    assert named(pipe, *CHECKS) == []


@pytest.mark.pg("== 17")
def test_standbys_that_are_named(cluster: Cluster) -> None:
    """A DSN of the primary alone does not lead to them."""
    (standby,) = cluster.standbys
    until(lambda: is_followed(cluster))
    pipe = pipe_of(cluster.database.dsn)
    words = f"host=127.0.0.1 port={standby.port}"
    unasked = one(pipe, "standby")
    assert (unasked.severity, "none was asked" in unasked.problem) == (Severity.INFO, True)
    assert unasked.fix.cli == ("penstock check PIPE.toml --standby host=STANDBY",)
    assert check(pipe, words) == []
    Database(standby, "postgres").execute("alter system set sync_replication_slots = off", "select pg_reload_conf()")
    del standby.settings["sync_replication_slots"]
    standby.restart()
    (found,) = check(pipe, words)
    assert (found.check, found.subject) == ("sync_replication_slots", f"127.0.0.1:{standby.port}")
    mend(standby, found)
    assert check(pipe, words) == []
    (other,) = check(pipe, words, f"host=127.0.0.1 port={cluster.primary.port}")
    assert (other.check, other.severity, other.problem) == ("standby", Severity.WARNING, "it is no standby")
    for wrong in ("port=1", "host=x password=y", "what"):
        with pytest.raises(ConfigError, match="--standby"):
            check(pipe, wrong)


@pytest.mark.pg("== 17")
def test_what_the_guide_says_is_enough(cluster: Cluster) -> None:
    """The statements of docs/failover.md, in their order."""
    (standby,) = cluster.standbys
    for name in ("hot_standby_feedback", "sync_replication_slots", "primary_slot_name"):
        del standby.settings[name]
    cluster.let_wait_for("")
    standby.restart()
    until(lambda: cluster.database.fetch("select count(*) from pg_stat_replication") == [(1,)])
    cluster.database.execute("select pg_drop_replication_slot('standby_1')")
    pipe = both(cluster)
    assert len(named(pipe, *CHECKS)) == 4
    (block,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "failover.md").read_text(), re.DOTALL)
    steps = re.findall(r"^-- (\d)\. on the (primary|standby)[^\n]*\n(.*?)(?=^--|\Z)", block, re.MULTILINE | re.DOTALL)
    assert [(number, where) for number, where, _ in steps] == [("1", "primary"), ("2", "standby"), ("3", "primary")]
    for number, where, text in steps:
        if number == "3":
            until(lambda: is_followed(cluster))
        server = cluster.primary if where == "primary" else standby
        Database(server, "postgres").execute(*text.strip().splitlines())
    until(lambda: named(pipe, *CHECKS) == [])


@pytest.mark.pg("== 17")
def test_the_standbys_copy_of_the_slot(cluster: Cluster) -> None:
    (standby,) = cluster.standbys
    until(lambda: is_followed(cluster))
    pipe = both(cluster)
    assert named(pipe, *CHECKS) == []
    cluster.database.execute(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    problems = {each.problem for each in named(both(cluster, slot=SLOT), *CHECKS)}
    assert problems == {"the slot was made without failover: no standby keeps it", "it has no copy of the slot yet"}
    (without,) = named(both(cluster, slot=SLOT), "failover")
    *_, statement = shlex.split(without.fix.cli[0])
    with contextlib.closing(Connector(Source(dsn=cluster.database.dsn), "t").replication({})) as replication:
        replication.execute(statement.encode())
    standby.restart()  # it looks at once

    def is_ready() -> bool:
        cluster.database.execute("select pg_log_standby_snapshot()")
        move = "select pg_replication_slot_advance(%s, pg_current_wal_lsn())"
        cluster.database.fetch(move, SLOT)
        return named(pipe, *CHECKS) == []

    until(is_ready)
    standby.stop()
    (away,) = named(pipe, *CHECKS)
    assert (away.check, away.severity) == ("standby", Severity.INFO)


@pytest.mark.parametrize(
    ("copy", "problem"),
    [
        ({"synced": True, "temporary": False, "invalidation_reason": None}, ""),
        ({"synced": True, "temporary": True, "invalidation_reason": None}, "not ready"),
        ({"synced": False, "temporary": False, "invalidation_reason": None}, "which is no copy"),
        ({"synced": True, "temporary": False, "invalidation_reason": "rows_removed"}, "of no use: rows_removed"),
        (None, "no copy"),
    ],
)
def test_a_copy_is_ready_or_why_not(copy: dict[str, object] | None, problem: str) -> None:
    found = standby_checks._not_ready(copy)
    assert problem in found
    assert bool(found) == bool(problem)


@pytest.mark.pg("== 16")
def test_what_a_standby_needs_as_the_source(cluster: Cluster) -> None:
    (standby,) = cluster.standbys
    cluster.database.execute("create table t (id int primary key)", "create publication given for table t")
    dsn = Database(standby, "shop").dsn
    cluster.wait_until_followed()
    assert one(pipe_of(dsn), "recovery").severity is Severity.BLOCKING
    assert check(pipe_of(dsn, publication="given", standby=True)) == []
    for name in ("hot_standby_feedback", "primary_slot_name"):
        del standby.settings[name]
    standby.restart()
    found = {each.check: each for each in check(pipe_of(dsn, standby=True))}
    assert set(found) >= {"publication", "hot_standby_feedback", "primary_slot_name"}
    assert found["publication"].severity is Severity.BLOCKING
    mend(standby, found["hot_standby_feedback"])
    assert "hot_standby_feedback" not in {each.check for each in check(pipe_of(dsn, publication="given", standby=True))}


@pytest.mark.pg("== 15")
def test_a_standby_of_15_is_no_source(cluster: Cluster) -> None:
    found = one(pipe_of(Database(cluster.standbys[0], "shop").dsn, standby=True), "recovery")
    assert (found.severity, found.problem) == (Severity.BLOCKING, "the server is a standby of PostgreSQL 15")
