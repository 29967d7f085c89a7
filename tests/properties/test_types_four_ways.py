"""Every type, with random values from PostgreSQL's own mouth: the same in ClickHouse whichever way they came.

The same few seconds every day. With ``PENSTOCK_TEST_SECONDS=3600`` the slow test searches for an hour, of one version and
destination (``-m slow --pg 18 -k server``); with ``PENSTOCK_TEST_SEED=…`` it begins with that one.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import random
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from tests.culprit import culprit
from tests.expected import Rules
from tests.fix_frames import IMPLEMENTATIONS
from tests.fix_pipe import Case
from tests.fix_postgres import Database, drop_database
from tests.four_ways import Column, Difference, Round, Sample
from tests.literals import whole
from tests.servers.postgres import PostgresServer
from tests.servers.postgres_extensions import pgvector
from tests.sorts import Sort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.clickhouse import ClickHouseServer

MODULES = [importlib.import_module(name) for name in IMPLEMENTATIONS]
SECONDS = float(os.environ.get("PENSTOCK_TEST_SECONDS", "20"))
SEED = int(os.environ.get("PENSTOCK_TEST_SEED", "0"))
_numbers = itertools.count(1)


def passed(case: Case, made: Round, rules: Rules) -> None:
    """One round, through copy and stream."""
    where = f"seed {made.seed}, PostgreSQL {case.database.server.version}, {rules}"
    print(where)
    made.prepare()
    failed, *statuses = through(case, made, settings_of(rules))
    if failed:
        pytest.fail(f"{where}: the pipe failed: {failed}\n{reduced(case, made, settings_of(rules))}")
    differences = made.differences(case, rules)
    assert not differences, f"{where}: {len(differences)} values differ\n" + shortest(differences)
    miscounted = made.miscounted(statuses, rules)
    assert not miscounted, f"{where}:\n" + "\n".join(miscounted)
    assert made.disagreements(MODULES) == []


def settings_of(rules: Rules) -> str:
    return f'nullable = {str(rules.nullable).lower()}\nbytea = "{rules.bytea}"'


def through(case: Case, made: Round, settings: str) -> list[str]:
    """What went wrong, empty if nothing did; then the status of the run that copied, and of the one that followed."""
    case.define(settings=settings)
    statuses = []
    for when in ("copied", "followed"):
        case.database.execute(*made.statements(when))
        try:
            done = case.penstock("run", str(case.file), "--once", "--json", timeout=90)
        except subprocess.TimeoutExpired:
            return [f"what was to be {when} has not ended after 90 s"]
        if done.returncode:
            return [done.stderr[-3000:]]
        statuses.append(done.stdout)
    return ["", *statuses]


def reduced(case: Case, made: Round, settings: str) -> str:
    """The one value that is enough for the pipe to fail, by leaving out half of the tables, columns and rows again and again."""

    def fails(sample: Sample) -> bool:
        name = f"half_{next(_numbers)}"
        folder = case.folder / name
        folder.mkdir()
        with fresh(case.database.server) as database:
            dsn = case.destination if case.server else f"chdb://{folder}/chdb"
            smaller = Case(folder, database, dsn, case.server, name=name)
            made_smaller = Round(made.seed, database, sample.rows, [sample])
            made_smaller.prepare()
            return bool(through(smaller, made_smaller, settings)[0])

    return culprit(made.samples, fails)


def shortest(differences: list[Difference]) -> str:
    """One of each type, with all the ways in which it differs."""
    first = {each.sort: each for each in reversed(differences)}
    ways = {
        sort: sorted({each.way for each in differences if each[:3:2] == (sort, first[sort].printed)}) for sort in first
    }
    return "\n".join(str(each._replace(way=", ".join(ways[sort]))) for sort, each in first.items())


@contextlib.contextmanager
def fresh(server: PostgresServer) -> Iterator[Database]:
    name = f"round_{os.getpid()}_{next(_numbers)}"
    with server.connect() as connection:
        connection.execute(f"create database {name}")  # type: ignore[call-overload]
    try:
        yield Database(server, name)
    finally:
        drop_database(server, name)


@pytest.mark.pg("== 15")
def test_a_value_is_the_same_whichever_way_it_came(
    database: Database, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    clickhouse_server.query("drop database if exists shop sync")
    case = Case(tmp_path, database, clickhouse_server.dsn(), clickhouse_server)
    passed(case, Round(7, database, 16), Rules("26.7"))


@pytest.mark.slow
@pytest.mark.pg_all
@pytest.mark.timeout(SECONDS + 900)
@pytest.mark.parametrize("destination", ["server", "embedded"])
def test_for_as_long_as_there_is_time(
    postgres: PostgresServer, clickhouse_server: ClickHouseServer, tmp_path: Path, destination: str
) -> None:
    ends = time.monotonic() + SECONDS
    seed = SEED or random.SystemRandom().getrandbits(32)
    while seed == SEED or time.monotonic() < ends:
        rng = random.Random(seed)
        release = "26.7" if destination == "server" else "26.9"
        rules = Rules(release, nullable=rng.random() < 0.7, bytea=rng.choice(("raw", "raw", "hex", "base64")))
        folder = tmp_path / str(seed)
        folder.mkdir()
        clickhouse_server.query("drop database if exists shop sync")
        with fresh(postgres) as database:
            server = clickhouse_server if destination == "server" else None
            case = Case(folder, database, server.dsn() if server else f"chdb://{folder}/chdb", server)
            passed(case, Round(seed, database, rng.choice((8, 24, 60))), rules)
        seed += 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_vectors_too(clickhouse_server: ClickHouseServer, tmp_path: Path, seed: int) -> None:
    """The same on a server that has pgvector."""
    build = pgvector()
    clickhouse_server.query("drop database if exists shop sync")
    with PostgresServer(build.version, build=build) as postgres, fresh(postgres) as database:
        made = Round(seed, database, 16)
        passed(Case(tmp_path, database, clickhouse_server.dsn(), clickhouse_server), made, Rules("26.7"))
        assert {"vector", "vector[]", "sparsevec"} <= {
            each.sort.sql for sample in made.samples for each in sample.columns
        }


@pytest.mark.slow
@pytest.mark.pg("== 15")
def test_a_failure_is_reduced_to_its_value(
    database: Database, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    number, digits = (Sort(name, rule, whole(0, 9)) for name, rule in (("int4", "number"), ("numeric(4,1)", "decimal")))
    columns = [Column(f"c{place}", digits if place == 3 else number, f"c{place}") for place in range(6)]
    values: dict[str, list[str | None]] = {each.name: [str(row) for row in range(7)] for each in columns}
    values["c3"][4] = "NaN"
    harmless = Sample("t0", columns[:2], {each.name: values[each.name] for each in columns[:2]})
    made = Round(1, database, 7, [harmless, Sample("t1", columns, values)])
    case = Case(tmp_path, database, clickhouse_server.dsn(), clickhouse_server)
    found = reduced(case, made, 'on_unfit = "fail"')
    assert "c3 numeric(4,1)" in found
    assert "(1, 'NaN')" in found
