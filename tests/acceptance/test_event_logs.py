"""Tables whose rows are events, without a key or as a history: every one exactly once, through copies, crashes and cuts."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from penstock.pipeline.failpoint import OF_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.fix_pipe import Case

KILLED = -9
HISTORY = '[tables.options."public.h"]\nshape = "history"'


def test_equal_rows_are_all_there(served: Case) -> None:
    served.database.execute(
        "create table k (a int, b text, f float8, n numeric(6, 2), big text)",
        "alter table k replica identity full",
        "alter table k alter big set storage external",
        "insert into k select i % 3, nullif('b' || i % 2, 'b1'), case i % 5 when 0 then 'NaN' when 1 then '-0' else '0' end::float8,"
        " i % 2, repeat('big' || i % 2, 1000) from generate_series(1, 300) i",
    )
    served.define()
    served.once()
    served.assert_equal("public.k")
    served.database.execute(
        "insert into k select * from k where a = 1",
        "update k set a = 7 where ctid in (select ctid from k where a = 0 limit 20)",  # big stays as it is
        "update k set f = '-0' where f = '0' and a = 7",
        "update k set b = b, n = n",
        "update k set n = 'NaN' where a = 2 and f = '0'",  # unfit: NULL
        "delete from k where ctid in (select ctid from k where a = 1 limit 30)",
        "delete from k where n = 'NaN' and ctid in (select ctid from k where n = 'NaN' limit 10)",
        "update k set n = 3 where n = 'NaN'",
        "insert into k values (null, null, null, null, null), (null, null, null, null, null)",
        "delete from k where ctid = (select max(ctid) from k)",
    )
    served.once()
    served.assert_equal("public.k")
    served.database.execute("truncate k", "insert into k select 1, 'x', 0, 0, 'x' from generate_series(1, 3)")
    served.once()
    served.assert_equal("public.k")


@pytest.mark.pg("== 15")
def test_a_keyless_table_sorted_and_partitioned(served: Case) -> None:
    served.database.execute(
        "create table k (a int not null, b date, c text)",
        "alter table k replica identity full",
        "insert into k select i % 10, '2024-01-01'::date + i % 60, 'c' from generate_series(1, 1000) i",
    )
    served.define(
        options='[tables.options."public.k"]\norder_by = ["a", "b"]\npartition_by = "toYYYYMM(assumeNotNull(b))"'
    )
    served.once()
    served.database.execute("update k set b = b + 30, a = a + 1 where a < 5", "delete from k where a = 9")
    served.once()
    served.assert_equal("public.k")
    assert served.query("select sorting_key from system.tables where name = 'k'") == [["a, b, _version, _is_deleted"]]


@pytest.mark.pg("== 15")
def test_a_workload_while_it_is_copied_and_killed(served: Case) -> None:
    """Every change arrives once, and with the values that its row had then, out-of-line ones that it did not touch too."""
    _killed_at_work(served, 1, "at the seam:1", "within a copy part:9", "after insert:6", "before confirm:3")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_more_workloads_while_they_are_copied_and_killed(case: Case, seed: int) -> None:
    _killed_at_work(case, seed, *(f"{place}:{number}" for place in OF_ROWS for number in (1, 4)))


def _killed_at_work(case: Case, seed: int, *failpoints: str) -> None:
    _tables(case)
    case.define(
        settings='copy_part_rows = 500\nmax_batch_rows = 300\nflush_interval = "50ms"\ncopy_workers = 1',
        options=HISTORY,
    )
    with _workload(case, seed):
        for failpoint in failpoints:
            case.penstock("run", str(case.file), "--once", failpoint=failpoint)
        with case.running():
            case.wait_for("select count() > 0 from k_current where a < 0", 1)
    case.once()
    case.assert_equal("public.k")
    _assert_history(case)


@pytest.mark.slow
@pytest.mark.pg("== 15")
def test_changes_wait_for_the_rows_that_complete_them(served: Case) -> None:
    """An UPDATE that leaves a value out, of a row that is copied last, while the source goes on changing."""
    _tables(served, rows=8000)
    served.define(
        settings="copy_part_rows = 500\nmax_batch_rows = 300\ncopy_workers = 1",
        options=HISTORY,
    )
    stop = threading.Event()

    def change_the_last() -> None:
        with psycopg.connect(served.database.dsn, autocommit=True) as connection:
            while not stop.is_set():
                for _ in range(20):
                    connection.execute("update h set v = v + 1 where id > 7990")
                connection.execute("update h set n = n + 1, t = repeat('t' || n + 1, 1500) where id > 7990")

    worker = threading.Thread(target=change_the_last)
    worker.start()
    try:
        with served.running():
            served.wait_for("select count() > 50 from h where _operation = 'update' and id > 7990", 1)
            stop.set()
            worker.join()
    finally:
        stop.set()
    served.once()
    _assert_history(served)
    log = served.log()
    assert log.count("stream open") > 1, "nothing had to wait"


@pytest.mark.pg("== 15")
@pytest.mark.parametrize(
    "place",
    [
        "at the seam:1",
        pytest.param("within a copy part:3", marks=pytest.mark.slow),
        pytest.param("after a copy part:5", marks=pytest.mark.slow),
    ],
)
def test_truncated_while_it_is_copied(served: Case, place: str) -> None:
    _tables(served)
    served.define(settings="copy_part_rows = 200\nmax_batch_rows = 100", options=HISTORY)
    done = served.penstock("run", str(served.file), "--once", failpoint=place)
    assert done.returncode == KILLED, done.stderr
    served.database.execute("truncate k, h", "insert into k values (1, 'x'), (1, 'x')", "insert into h values (1)")
    with served.running():
        served.database.execute("insert into k values (1, 'x')", "truncate k", "insert into k values (2, 'y')")
    served.database.execute("insert into k values (2, 'y')", "truncate h", "insert into h values (5)")
    served.once()
    served.assert_equal("public.k")
    since = "(select max(if(_operation = 'truncate', _version, 0)) from h)"  # 0: it was copied later
    assert served.query(f"select id from h final where _operation != 'truncate' and _version >= {since}") == [["5"]]


@pytest.mark.pg("== 15")
@pytest.mark.parametrize(
    "change",
    [
        "alter table h drop column n, add column w int default 7",
        pytest.param("alter table h rename column n to w", marks=pytest.mark.slow),
        pytest.param("alter table h alter n type bigint", marks=pytest.mark.slow),
    ],
)
def test_its_definition_changes_while_it_is_copied(served: Case, change: str) -> None:
    """Parts are read under a snapshot that knows nothing of it."""
    _tables(served)
    served.define(settings="copy_part_rows = 20\ncopy_workers = 1", options=HISTORY)
    with served.running():
        served.wait_for("select count() > 60 from h", 1)
        served.database.execute(change, "insert into h (id) values (4000)", "update h set v = 1 where id = 4000")
        served.wait_until(lambda: 'event="table streaming" table=public.h' in served.log(), "h streams")
        served.wait_for("select count() from h where id = 4000 and v = 1", 1)
    assert served.query("select uniqExact(id) from h final") == [["3001"]]
    assert (
        served.query("select id, count() from h final where _operation = 'copy' group by id having count() > 1") == []
    )


@pytest.mark.pg("== 15")
def test_what_feeds_a_materialized_view(served: Case) -> None:
    """It sees every row, tombstone and replay; by version and flag it can keep the rows as they are."""
    served.database.execute(
        "create table n (id int primary key, v int, t text)",
        "alter table n alter t set storage external",
        "insert into n select i, i, repeat('t' || i, 1000) from generate_series(1, 50) i",
    )
    for statement in (
        "create database shop",
        (
            "create table shop.n (id Int32, v Nullable(Int32), t Nullable(String), _version UInt128, _is_deleted UInt8,"
            " _synced_at DateTime64(3) default now64(3)) engine = Null"
        ),
        (
            "create materialized view shop.kept engine = ReplacingMergeTree(_version, _is_deleted) order by id"
            " as select id, v, t, _version, _is_deleted from shop.n"
        ),
        "create view shop.n_current as select id, v, t from shop.kept final where _is_deleted = 0",
    ):
        assert served.server is not None
        served.server.query(statement)
    served.define(options='[tables.options."public.n"]\nshape = "null"\n')
    served.once()
    served.database.execute(
        "update n set v = v + 1 where id <= 20; delete from n where id = 30; update n set id = -id where id > 40"
    )
    served.once(failpoint="after insert:1", expect=KILLED)
    served.once()
    served.assert_equal("public.n")
    assert served.query("select count() from n") == [["0"]]


def _tables(case: Case, rows: int = 3000) -> None:
    case.database.execute(
        "create table k (a int, b text)",
        "alter table k replica identity full",
        f"insert into k select i % 20, 'b' || i % 7 from generate_series(1, {rows}) i",
        "create table h (id int primary key, v int default 0, n int default 0, t text)",
        "alter table h alter t set storage external",
        f"insert into h select i, 0, 0, repeat('t0', 1500) from generate_series(1, {rows}) i",
        "analyze k, h",
    )


def _workload(case: Case, seed: int) -> AbstractContextManager[None]:
    from contextlib import contextmanager

    @contextmanager
    def running() -> Iterator[None]:
        stop = threading.Event()
        workers = [threading.Thread(target=_change, args=(case, seed * 10 + each, stop)) for each in range(2)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            stop.set()
            for worker in workers:
                worker.join()

    return running()


def _change(case: Case, seed: int, stop: threading.Event) -> None:
    chance = random.Random(seed)
    with psycopg.connect(case.database.dsn, autocommit=False) as connection:
        while not stop.wait(0.002):
            try:
                for _ in range(chance.randint(1, 6)):
                    _statement(connection, chance)
                if chance.random() < 0.15:
                    connection.rollback()
                else:
                    connection.commit()
            except psycopg.errors.DeadlockDetected:
                connection.rollback()


def _statement(connection: psycopg.Connection, chance: random.Random) -> None:
    one, some = chance.randint(1, 3000), "ctid = any(array(select ctid from k where a = %s limit 3))"
    match chance.randint(0, 5):
        case 0:
            connection.execute("insert into k select %s, 'b1' from generate_series(1, 3)", (one % 20,))
        case 1:
            connection.execute(f"update k set a = -a where {some}", (one % 20,))
        case 2:
            connection.execute(f"delete from k where {some}", (one % 20,))
        case 3:
            connection.execute("update h set n = n + 1, t = repeat('t' || n + 1, 1500) where id = %s", (one,))
        case _:
            connection.execute("update h set v = v + 1 where id between %s and %s", (one, one + 2))


def _assert_history(case: Case) -> None:
    """Each change added one to v or n, and the text tells n."""
    wrong = "select count() from h final where t != repeat(concat('t', toString(n)), 1500)"
    assert case.query(wrong) == [["0"]]
    assert case.query("select id, count() from h final where _operation = 'copy' group by id having count() != 1") == []
    steps = (
        "select count() from (select _operation, v + n - lagInFrame(v + n) over (partition by id order by _version) as step"
        " from h final) where step != 1 and _operation != 'copy'"
    )
    assert case.query(steps) == [["0"]]
    ours = case.query("select id, max(v), max(n) from h group by id order by id")
    assert [tuple(map(int, row)) for row in ours] == case.database.fetch("select id, v, n from h order by id")


@pytest.mark.pg("== 15")
def test_a_partition_is_attached_to_a_history(served: Case) -> None:
    """Its rows come with their first change, whole: what the change left out is read from the source."""
    served.database.execute(
        "create table h (id int, n int, t text, primary key (id)) partition by range (id)",
        "create table h1 partition of h for values from (0) to (10)",
        "insert into h values (1, 0, 'small')",
        "create table h2 (id int not null primary key, n int, t text)",
        "alter table h2 alter t set storage external",
        "insert into h2 values (11, 0, repeat('big', 2000)), (12, 0, repeat('big', 2000)), (13, 0, 'stays')",
    )
    served.define(tables='include = ["public.h"]', options=HISTORY)
    with served.running():
        served.wait_for("select count() from h", 1)
        served.database.execute(
            "alter table h attach partition h2 for values from (10) to (20)",
            "update h set n = 1 where id in (1, 11)",
            "update h set n = 2 where id = 11",
            "delete from h where id = 12",
        )
        served.wait_for("select count() from h where _operation = 'delete'", 1)
        seen = served.query("select id, n, length(t), _operation from h final order by _version")
        assert seen == [
            ["1", "0", "5", "copy"],
            ["1", "1", "5", "update"],
            ["11", "1", "6000", "update"],
            ["11", "2", "6000", "update"],
            ["12", None, None, "delete"],
        ]
