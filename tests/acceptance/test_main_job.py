"""The main job: copy, follow, go on; on every version of PostgreSQL, into both kinds of ClickHouse."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fix_pipe import Case

SCHEMA = """
create type mood as enum ('sad', 'ok', 'happy');
create domain price as numeric(10, 2) check (value >= 0);
create table public.things (
    id bigint primary key, small smallint, normal int not null, flag boolean, ratio double precision, single real,
    amount numeric(12, 2), any_number numeric, cost price, name text not null, code varchar(20), fixed char(5),
    raw bytea, uid uuid, born date, at timestamp, at_tz timestamptz, clock time, doc jsonb, plain json, feeling mood,
    gap interval, address inet, tags text[], big text
);
create table public.empty_one (id int primary key, note text);
create table public.single_row (id int primary key, note text);
insert into single_row values (1, 'only');
"""
ROWS = """
insert into things
select i, (i % 1000)::smallint, i * 7, i % 3 = 0, i / 7.0, (i / 3.0)::real, i * 1.25, i * 1.000100, i % 100,
    'name ' || i, 'c' || i, 'f' || i % 10, decode(md5(i::text), 'hex'), md5(i::text)::uuid, date '2000-01-01' + (i % 9000)::int,
    timestamp '2001-02-03 04:05:06.789' + i * interval '1 minute', timestamptz '2001-02-03 04:05:06+02' + i * interval '1 hour',
    time '00:00' + i * interval '7 seconds', jsonb_build_object('i', i, 'q', 'it''s "x"'), json_build_array(i, null),
    (array['sad', 'ok', 'happy'])[1 + i % 3]::mood, i * interval '1 hour', '10.0.0.1'::inet + i, array['a', null, 'b' || i],
    case when i % 50 = 0 then repeat(md5(i::text), 200) end
from generate_series({}, {}) i
"""


@pytest.mark.pg_all
def test_copy_insert_update_delete(case: Case) -> None:
    case.database.execute(
        SCHEMA, ROWS.format(1, 2000), "update things set name = E'tab\\t newline\\n back\\\\slash' where id = 7"
    )
    case.define()
    case.once()
    case.assert_equal("public.things", "public.empty_one", "public.single_row")
    with case.running():
        case.database.execute(
            ROWS.format(2001, 2500),
            "insert into empty_one values (1, 'first'), (2, null)",
            "update things set name = 'changed', amount = -0.01, flag = null where id between 100 and 300",
            "delete from things where id between 500 and 600",
            "update things set id = id + 100000 where id between 1000 and 1100",
            "update single_row set note = null",
        )
        case.wait_for("select count() from things_current", 2399)
        case.wait_for("select count() from things_current where name = 'changed'", 201)
        case.wait_for("select count() from things_current where id > 100000", 101)
        case.wait_for("select count() from single_row_current where note is null", 1)
        case.assert_equal("public.things", "public.empty_one", "public.single_row")
    case.once()
    case.assert_equal("public.things", "public.empty_one", "public.single_row")


@pytest.mark.pg("== 18")
def test_a_lone_row_is_readable_at_once(embedded: Case) -> None:
    embedded.database.execute("create table t (id int primary key)")
    embedded.define()
    with embedded.running():
        embedded.database.execute("insert into t values (0)")
        embedded.wait_for("select count() from t_current", 1)
        for each in range(1, 6):
            embedded.database.execute(f"insert into t values ({each})")
            embedded.wait_for("select count() from t_current", each + 1)


@pytest.mark.pg("== 15")
def test_once_ends_with_everything_that_was_committed(case: Case) -> None:
    case.database.execute(
        "create table t (id int primary key, v text)", "insert into t select i, 'v' from generate_series(1, 1000) i"
    )
    case.define()
    case.once()
    for round_number in range(3):
        case.database.execute(
            f"insert into t select i, 'w' from generate_series(1, 500) i on conflict (id) do update set v = 'r{round_number}'"
        )
        case.once()
        case.assert_equal("public.t")


@pytest.mark.pg("== 15")
def test_sigterm_drains_and_a_second_process_is_told_who_holds_the_pipe(embedded: Case) -> None:
    embedded.database.execute("create table t (id int primary key)")
    embedded.define()
    with embedded.running() as process:
        embedded.wait_for("select count() from t_current", 0)
        second = embedded.penstock("run", str(embedded.file))
        assert second.returncode == 1
        assert re.search(rf"process {process.pid} on .*since", second.stderr)
        embedded.database.execute("insert into t select generate_series(1, 5000)")
    began = time.monotonic()
    embedded.assert_equal("public.t")
    assert time.monotonic() - began < 60


def test_truncate_is_applied_in_order(case: Case) -> None:
    case.database.execute(
        "create table t (id int primary key, v int)", "insert into t select i, 0 from generate_series(1, 100) i"
    )
    case.define()
    case.once()
    case.database.execute(
        "begin; insert into t values (1000, 1); truncate t; insert into t values (2000, 2); commit; insert into t values (5, 5)"
    )
    case.once()
    case.assert_equal("public.t")
    case.define(settings='on_truncate = "ignore"')
    case.database.execute("truncate t", "insert into t values (1, 1)")
    case.once()
    assert case.query("select count() from t_current") == [["3"]]


def test_partitioned_tables_arrive_as_their_root(case: Case) -> None:
    case.database.execute(
        "create table events (id int, at date not null, note text, primary key (id, at)) partition by range (at)",
        "create table events_2023 partition of events for values from ('2023-01-01') to ('2024-01-01')",
        "create table events_2024 (note text, extra int, at date not null, id int not null)",
        "alter table events_2024 drop column extra",
        "alter table events attach partition events_2024 for values from ('2024-01-01') to ('2025-01-01')",
        "insert into events select i, date '2023-01-01' + i, 'n' || i from generate_series(0, 700) i",
    )
    case.define()
    case.once()
    case.assert_equal("public.events")
    case.database.execute(
        "insert into events values (9000, '2023-05-05', 'new'), (9001, '2024-05-05', 'new')",
        "update events set note = 'moved', at = '2024-12-01' where id = 3",
        "update events set note = 'changed' where id between 100 and 600",
        "delete from events where id between 300 and 400",
    )
    case.once()
    case.assert_equal("public.events")


def test_keyless_tables_with_full_identity(case: Case) -> None:
    case.database.execute(
        "create table log (at timestamptz, what text, n numeric)",
        "alter table log replica identity full",
        "insert into log select now() + i * interval '1 s', nullif('w' || i % 7, 'w3'), i from generate_series(1, 50) i",
        "create table refused (a int)",
    )
    case.define()
    done = case.once(expect=1)
    assert "table=public.refused" in done.stderr
    assert "REPLICA IDENTITY FULL" in done.stderr
    case.define(tables='exclude = ["public.refused"]')
    case.database.execute(
        "update log set what = 'x' where n < 10",
        "delete from log where n > 40",
        "insert into log values (null, null, null)",
    )
    case.once()
    case.assert_equal("public.log")


def test_history_keeps_every_change(case: Case) -> None:
    case.database.execute(
        "create table t (id int primary key, v text)",
        "insert into t values (1, 'a'), (2, 'b')",
        "create table k (v int)",
        "insert into k values (1), (1)",
    )
    case.define(
        options='[tables.options."public.t"]\nshape = "history"\n[tables.options."public.k"]\nshape = "history"'
    )
    case.once()
    case.database.execute(
        "update t set v = 'c' where id = 1",
        "delete from t where id = 2",
        "insert into t values (3, 'd')",
        "update t set id = 4 where id = 3",
        "insert into k values (1)",
    )
    case.once()
    case.once()
    rows = case.query("select id, v, _operation, _is_deleted from t final order by _version, _operation, id")
    assert rows == [
        ["1", "a", "copy", "0"],
        ["2", "b", "copy", "0"],
        ["1", "c", "update", "0"],
        ["2", None, "delete", "1"],
        ["3", "d", "insert", "0"],
        ["4", "d", "update", "0"],
        ["3", None, "delete", "1"],
    ]
    assert case.query("select _operation, count() from k final group by _operation order by 1") == [
        ["copy", "2"],
        ["insert", "1"],
    ]
