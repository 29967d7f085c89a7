"""``order_by`` columns that PostgreSQL does not send of an old row: rows move, and leave nothing behind."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from tests.fix_pipe import Case

OPTIONS = (
    '[tables.options."public.t"]\norder_by = ["region", "score"]\npartition_by = "toYYYYMM(at)"\n'
    '[tables.options."public.u"]\norder_by = ["at"]'
)


def _tables(case: Case, rows: int) -> None:
    case.database.execute(
        "create table t (id int, part numeric(6, 2), region text, score float8, at date not null, note text, primary key (id, part))",
        "alter table t alter region set storage external, alter note set storage external",
        f"insert into t select i, 1.5, case when i % 4 > 0 then repeat('r' || i % 3, 1200) end, i % 5, '2024-01-31'::date + i % 50,"
        f" repeat('n' || i, 600) from generate_series(1, {rows}) i",
        "create table u (code text not null, at timestamptz, v int, doc json, raw jsonb not null default '{}')",
        "alter table u alter doc set storage external",
        "create unique index u_code on u (code)",
        "alter table u replica identity using index u_code",
        "insert into u select 'u' || i, now() + i * interval '1 minute', 0, row_to_json(large)"
        f" from generate_series(1, {rows}) i, lateral (select i as n, repeat('x', 3000) as t) large",
        "analyze t, u",
    )


def test_rows_that_move(served: Case) -> None:
    _tables(served, 400)
    served.define(settings='json = "json"', options=OPTIONS)
    served.once()
    served.assert_equal("public.t", "public.u")
    served.database.execute(
        "update t set score = score + 1 where id <= 100",
        "update t set region = null where id between 50 and 60",
        "update t set region = 'short' where id between 55 and 150",
        "update t set note = 'x' where id > 140",  # everything else stays
        "update t set id = -id, score = 9 where id between 90 and 120",
        "update t set part = part + 1 where id between 200 and 230",
        "update t set at = at + 40 where id between 210 and 240",
        "delete from t where id between 220 and 300",
        "insert into t values (250, 1.5, 'again', null, '2025-01-01', null)",
        "update u set at = at - interval '1 day' where v = 0 and code < 'u2'",
        "update u set at = null where code like 'u3%'",
        "update u set code = 'x' || code, at = now() where code like 'u31%'",
        "delete from u where code like '%4'",
    )
    served.once()
    served.assert_equal("public.t", "public.u")
    served.database.execute(
        "update t set score = -1 - score",
        "delete from t where id % 2 = 0",
        "truncate u",
        "insert into u values ('a', now(), 1)",
    )
    served.once()
    served.assert_equal("public.t", "public.u")


@pytest.mark.slow
@pytest.mark.pg("== 15")
def test_rows_that_move_while_they_are_copied_and_killed(served: Case) -> None:
    _killed_at_work(served, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_more_rows_that_move(case: Case, seed: int) -> None:
    _killed_at_work(case, seed)


def _killed_at_work(case: Case, seed: int) -> None:
    _tables(case, 2000)
    case.define(
        settings='json = "json"\ncopy_part_rows = 300\nmax_batch_rows = 200\nflush_interval = "50ms"\ncopy_workers = 1',
        options=OPTIONS,
    )
    stop = threading.Event()
    workers = [threading.Thread(target=_change, args=(case, seed * 10 + number, stop)) for number in range(2)]
    for worker in workers:
        worker.start()
    try:
        for failpoint in ("within a copy part:7", "after insert:12", "after insert:5", "before confirm:4"):
            case.penstock("run", str(case.file), "--once", failpoint=failpoint)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    case.once()
    case.assert_equal("public.t", "public.u")


def _change(case: Case, seed: int, stop: threading.Event) -> None:
    chance = random.Random(seed)
    with psycopg.connect(case.database.dsn, autocommit=False) as connection:
        while not stop.wait(0.005):
            try:
                for _ in range(chance.randint(1, 5)):
                    _statement(connection, chance)
                connection.commit() if chance.random() > 0.15 else connection.rollback()
            except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                connection.rollback()


def _statement(connection: psycopg.Connection, chance: random.Random) -> None:
    one, other = chance.randint(1, 2000), chance.randint(1, 2500)
    match chance.randint(0, 7):
        case 0:
            connection.execute("update t set score = score + 1 where id between %s and %s", (one, one + 3))
        case 1:
            connection.execute("update t set region = repeat('m' || %s, 1200) where id = %s", (other, one))
        case 2:
            connection.execute("update t set note = 'n' || %s where id = %s", (other, one))
        case 3:
            connection.execute("update t set id = %s, score = %s where id = %s", (other, other % 7, one))
        case 4:
            connection.execute("delete from t where id = %s", (one,))
        case 5:
            connection.execute(
                "insert into t values (%s, 1.5, 'new', 1, '2024-03-01', null) on conflict (id, part) do update set score = 2, note = 'c'",
                (other,),
            )
        case 6:
            connection.execute("update u set at = at + interval '1 s', v = v + 1 where code = %s", (f"u{one}",))
        case _:
            connection.execute("update u set code = %s where code = %s", (f"u{other}", f"u{one}"))
