"""kill -9 at every named place, then go on: both ends are equal, and nothing is there twice."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from penstock.pipeline.failpoint import OF_ROWS

if TYPE_CHECKING:
    from tests.fix_pipe import Case

KILLED = -9
EVERY_DAY = ("before confirm",)


@pytest.mark.pg("== 15")
@pytest.mark.parametrize(
    "place", [each if each in EVERY_DAY else pytest.param(each, marks=pytest.mark.slow) for each in OF_ROWS]
)
def test_killed_and_going_on(served: Case, place: str) -> None:
    _killed_and_going_on(served, place)


@pytest.mark.slow
@pytest.mark.pg("== 15")
@pytest.mark.parametrize("place", OF_ROWS)
def test_killed_and_going_on_embedded(embedded: Case, place: str) -> None:
    _killed_and_going_on(embedded, place)


def _killed_and_going_on(case: Case, place: str) -> None:
    case.database.execute(
        "create table t (id int primary key, v text, big text)",
        "alter table t alter big set storage external",
        "insert into t select i, 'v' || i, repeat('b' || i, 1500) from generate_series(1, 5000) i",
        "create table h (id int primary key, v int)",
        "insert into h select i, 0 from generate_series(1, 100) i",
    )
    case.define(
        settings="max_batch_rows = 500\ncopy_part_rows = 1000", options='[tables.options."public.h"]\nshape = "history"'
    )
    killed = 0
    for number in range(1, 4):
        done = case.penstock("run", str(case.file), "--once", failpoint=f"{place}:{number}")
        assert done.returncode in (0, KILLED), done.stderr
        killed += done.returncode == KILLED
        case.database.execute(
            f"update t set v = 'r{number}' where id % 3 = 0",
            f"insert into t select i + {number} * 10000, 'new', null from generate_series(1, 1200) i",
            f"update t set id = id + 1000000 where id between {number} * 100 and {number} * 100 + 50",
            f"delete from t where id between {number} * 200 and {number} * 200 + 20",
            f"update h set v = {number}",
        )
    assert killed, f"nothing was ever killed at {place!r}"
    case.once()
    case.assert_equal("public.t")
    changes = case.query("select _operation, count() from h final where _operation != 'copy' group by 1 order by 1")
    copied = case.query("select count(), uniq(id) from h final where _operation = 'copy'")
    assert copied == [["100", "100"]]
    assert changes in [[], *([["update", str(count)]] for count in (100, 200, 300))]  # others came with the copy's seam
    assert case.query("select id, v from (select id, argMax(v, _version) v from h group by id) where v != 3") == []


@pytest.mark.pg("== 15")
def test_a_workload_while_it_is_copied_killed_and_cut(embedded: Case) -> None:
    _killed_at_work(embedded, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_more_workloads_while_they_are_copied_killed_and_cut(case: Case, seed: int) -> None:
    _killed_at_work(case, seed)


def _killed_at_work(case: Case, seed: int) -> None:
    """Concurrent transactions change the tables during the copy; the process is killed on the way."""
    case.database.execute(
        "create table a (id int primary key, v int, t text)",
        "create table b (k text, n int, v numeric(10, 2), primary key (k, n))",
        "alter table a alter t set storage external",
        "insert into a select i, i, repeat('t' || i, 800) from generate_series(1, 20000) i",
        "insert into b select 'k' || i % 100, i, i / 3.0 from generate_series(1, 20000) i",
    )
    case.define(settings='copy_part_rows = 2000\nmax_batch_rows = 1000\nflush_interval = "100ms"')
    stop = threading.Event()
    workers = [threading.Thread(target=_change, args=(case, seed * 100 + number, stop)) for number in range(3)]
    for worker in workers:
        worker.start()
    try:
        done = case.penstock("run", str(case.file), "--once", failpoint="within a copy part:5")
        assert done.returncode == KILLED, done.stderr
        done = case.penstock("run", str(case.file), "--once", failpoint="after insert:4")
        assert done.returncode in (0, KILLED), done.stderr
        with case.running():
            case.wait_for("select count() > 0 from a_current where v < 0", 1)
            stop.set()
            for worker in workers:
                worker.join()
    finally:
        stop.set()
    case.once()
    case.assert_equal("public.a", "public.b")


def _change(case: Case, seed: int, stop: threading.Event) -> None:
    chance = random.Random(seed)
    with psycopg.connect(case.database.dsn, autocommit=False) as connection:
        while not stop.is_set():
            try:
                for _ in range(chance.randint(1, 8)):
                    _statement(connection, chance)
                if chance.random() < 0.15:
                    connection.rollback()
                else:
                    connection.commit()
            except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
                connection.rollback()


def _statement(connection: psycopg.Connection, chance: random.Random) -> None:
    one, other = chance.randint(1, 21000), chance.randint(1, 21000)
    match chance.randint(0, 8):
        case 0:
            connection.execute(
                "insert into a values (%s, -1, repeat('new', 1000)) on conflict (id) do update set v = -1", (one,)
            )
        case 1 | 2:
            connection.execute("update a set v = -v where id between %s and %s", (one, one + 5))
        case 3:
            connection.execute("delete from a where id = %s", (one,))
        case 4:
            connection.execute("update a set id = %s where id = %s", (other, one))
        case 5:
            connection.execute("update b set v = v + 1 where n = %s", (one,))
        case 6:
            connection.execute("update b set k = 'x' || k where n = %s", (one,))
        case 7:
            connection.execute("insert into b values (%s, %s, 0) on conflict do nothing", (f"n{one}", other))
        case _:
            connection.execute("delete from b where n between %s and %s", (one, one + 3))
