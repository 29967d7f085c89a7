"""Every type, with random values from PostgreSQL's own mouth: the same in ClickHouse whichever way they came.

The same few seconds every day. With ``PENSTOCK_TEST_SECONDS=3600`` the slow test searches for an hour, of one version and
destination (``-m slow --pg 18 -k server``); with ``PENSTOCK_TEST_SEED=…`` it begins with that one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import time
from typing import TYPE_CHECKING

import pytest
from tests.expected import Rules
from tests.fix_frames import IMPLEMENTATIONS
from tests.fix_pipe import Case
from tests.fix_postgres import Database, drop_database
from tests.four_ways import Difference, Round

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.clickhouse import ClickHouseServer
    from tests.servers.postgres import PostgresServer

MODULES = [importlib.import_module(name) for name in IMPLEMENTATIONS]
SECONDS = float(os.environ.get("PENSTOCK_TEST_SECONDS", "20"))
SEED = int(os.environ.get("PENSTOCK_TEST_SEED", "0"))


def passed(case: Case, seed: int, rules: Rules, rows: int) -> None:
    """One round, through copy and stream."""
    made = Round(seed, case.database, rows)
    made.prepare()
    case.database.execute(*made.statements("copied"))
    case.define(settings=f'nullable = {str(rules.nullable).lower()}\nbytea = "{rules.bytea}"')
    where = f"seed {seed}, PostgreSQL {case.database.server.version}, {rules}"
    print(where)
    first = case.penstock("run", str(case.file), "--once", "--json")
    case.database.execute(*made.statements("followed"))
    second = case.penstock("run", str(case.file), "--once", "--json", timeout=60)
    if first.returncode or second.returncode:
        pytest.fail(f"{where}: the pipe failed\n{first.stderr[-3000:]}\n{second.stderr[-3000:]}")
    differences = made.differences(case, rules)
    assert not differences, f"{where}: {len(differences)} values differ\n" + shortest(differences)
    miscounted = made.miscounted((first.stdout, second.stdout), rules)
    assert not miscounted, f"{where}:\n" + "\n".join(miscounted)
    assert made.disagreements(MODULES) == []


def shortest(differences: list[Difference]) -> str:
    """One of each type, with all the ways in which it differs."""
    first = {each.sort: each for each in reversed(differences)}
    ways = {
        sort: sorted({each.way for each in differences if each[:3:2] == (sort, first[sort].printed)}) for sort in first
    }
    return "\n".join(str(each._replace(way=", ".join(ways[sort]))) for sort, each in first.items())


@pytest.mark.pg("== 15")
def test_a_value_is_the_same_whichever_way_it_came(
    database: Database, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    clickhouse_server.query("drop database if exists shop sync")
    passed(Case(tmp_path, database, clickhouse_server.dsn(), clickhouse_server), 7, Rules("26.7"), 24)


@contextlib.contextmanager
def fresh(server: PostgresServer, number: int) -> Iterator[Database]:
    name = f"round_{os.getpid()}_{number}"
    with server.connect() as connection:
        connection.execute(f"create database {name}")  # type: ignore[call-overload]
    try:
        yield Database(server, name)
    finally:
        drop_database(server, name)


@pytest.mark.slow
@pytest.mark.pg_all
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("destination", ["server", "embedded"])
def test_for_as_long_as_there_is_time(
    postgres: PostgresServer, clickhouse_server: ClickHouseServer, tmp_path: Path, destination: str
) -> None:
    ends = time.monotonic() + SECONDS
    seed = SEED or random.SystemRandom().getrandbits(32)
    number = 0
    while not number or time.monotonic() < ends:
        rng = random.Random(seed + number)
        release = "26.7" if destination == "server" else "26.9"
        rules = Rules(release, nullable=rng.random() < 0.7, bytea=rng.choice(("raw", "raw", "hex", "base64")))
        folder = tmp_path / str(number)
        folder.mkdir()
        clickhouse_server.query("drop database if exists shop sync")
        with fresh(postgres, number) as database:
            dsn = clickhouse_server.dsn() if destination == "server" else f"chdb://{folder}/chdb"
            server = clickhouse_server if destination == "server" else None
            passed(Case(folder, database, dsn, server), seed + number, rules, rng.choice((8, 24, 60)))
        number += 1
