"""Columns that come, go, change their names and types while the pipe runs, or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import QUICK, streaming

if TYPE_CHECKING:
    from tests.fix_pipe import Case

TABLE = (
    "create table t (id int primary key, v text, n int)",
    "insert into t select i, 'v' || i, i from generate_series(1, 100) i",
)


def columns(case: Case, table: str = "t_current") -> dict[str, str]:
    rows = case.query(f"select name, type from system.columns where database = 'shop' and table = '{table}'")
    return {str(name): str(type_) for name, type_ in rows}


def test_columns_are_added_within_a_transaction(case: Case) -> None:
    """Each row is read by the version of the table under which it was written."""
    case.database.execute(*TABLE, "create table u (id int primary key, v text)")
    case.define(settings=QUICK)
    with case.running():
        streaming(case, 2)
        case.database.execute(
            "begin; insert into t values (1001, 'before', 1); insert into u values (1, 'before');"
            " alter table t add column w int; insert into t values (1002, 'after', 2, 8);"
            " alter table t add column x text not null default 'it''s \\ x'; alter table t add column y numeric(10,2) default 1.50;"
            " insert into t values (1003, 'later', 3, 9, 'own', null); update t set n = n + 1 where id = 5;"
            " insert into u values (2, 'after'); commit"
        )
        case.wait_for("select count() from u_current", 2)
        case.wait_for("select count() from t_current where x = 'own'", 1)
        case.assert_equal("public.t", "public.u")
        case.database.execute("update t set w = 5, y = 7 where id < 10", "delete from t where id = 11")
        case.wait_for("select count() from t_current where w = 5", 9)
        case.assert_equal("public.t", "public.u")
    case.once()
    case.assert_equal("public.t", "public.u")
    assert "copied again" not in case.log()


@pytest.mark.slow
def test_a_column_appears_by_itself(served: Case) -> None:
    served.database.execute(*TABLE)
    served.define(settings=QUICK)
    with served.running():
        streaming(served)
        served.database.execute("alter table t add column at timestamptz default '2020-02-03 04:05:06.789+00'")
        served.wait_until(lambda: "at" in columns(served), "the column is there", 20)
        served.assert_equal("public.t")


def test_a_volatile_default_is_read_again(served: Case) -> None:
    served.database.execute(*TABLE)
    served.define(settings=QUICK)
    with served.running():
        streaming(served)
        served.database.execute(
            "begin; insert into t values (1001, 'before', 1); update t set n = 0 where id = 7; delete from t where id = 8;"
            " alter table t add column r double precision default random(), add column s serial;"
            " insert into t values (1002, 'after', 2); update t set n = -1 where id = 9; commit"
        )
        served.wait_for("select count() from t_current where r is null or s = 0", 0)
        served.wait_for("select count() from t_current", 101)
        served.assert_equal("public.t")
        served.database.execute("update t set r = 2 where id < 50", "delete from t where id between 40 and 60")
        served.wait_for("select count() from t_current", 80)
        served.wait_for("select count() from t_current where r = 2", 38)
        served.assert_equal("public.t")
        streaming(served, 2)


def test_columns_are_dropped_and_come_again(served: Case) -> None:
    served.database.execute(*TABLE)
    served.define(settings=QUICK)
    with served.running():
        streaming(served)
        served.database.execute("alter table t drop column v", "insert into t values (101, 1)")
        served.wait_for("select count() from t_current", 101)
        assert list(columns(served)) == ["id", "n"]
        assert served.query("select id, v from t where id in (100, 101) order by id") == [
            ["100", "v100"],
            ["101", None],
        ]
        served.database.execute("alter table t add column v int default 3", "insert into t values (102, 1, 4)")
        served.wait_for("select count() from t_current", 102)
        served.assert_equal("public.t")
        served.database.execute(
            "begin; alter table t drop column v; alter table t add column v text; insert into t values (103, 1, 'x'); commit"
        )
        served.wait_for("select count() from t_current", 103)
        served.assert_equal("public.t")
    assert "copied again" not in served.log()


@pytest.mark.slow
def test_a_column_made_again_with_the_same_type(served: Case) -> None:
    served.database.execute(*TABLE)
    served.define(settings=QUICK)
    with served.running():
        streaming(served)
        served.database.execute(
            "begin; insert into t values (101, 'old', 1); alter table t drop column v; alter table t add column v text;"
            " insert into t values (102, 1, 'x'); commit"
        )
        served.wait_for("select count() from t_current where v is not null", 1)
        served.wait_for("select count() from t_current", 102)
        served.assert_equal("public.t")


@pytest.mark.slow
def test_columns_are_dropped_here_too(served: Case) -> None:
    served.database.execute(*TABLE)
    served.define(settings=QUICK + '\non_drop_column = "drop"')
    with served.running():
        streaming(served)
        served.database.execute("alter table t drop column v", "insert into t values (101, 1)")
        served.wait_for("select count() from t_current", 101)
        assert "v" not in columns(served, "t")
        served.assert_equal("public.t")


def test_columns_are_renamed(served: Case) -> None:
    served.database.execute(*TABLE)
    served.define(settings=QUICK)
    with served.running():
        streaming(served)
        served.database.execute(
            "begin; insert into t values (101, 'a', 1); alter table t rename v to text; insert into t values (102, 'b', 1); commit",
            "alter table t rename n to number",
        )
        served.wait_until(lambda: list(columns(served)) == ["id", "text", "number"], "both have their names", 20)
        served.assert_equal("public.t")
        assert "copied again" not in served.log()
        served.database.execute("begin; alter table t rename text to x; alter table t rename number to text; commit")
        served.wait_until(lambda: list(columns(served)) == ["id", "x", "text"], "the names have moved", 30)
        served.assert_equal("public.t")
        served.database.execute("alter table t rename id to key", "insert into t values (103, 'c', 1)")
        served.wait_for("select count(key) from t_current", 103)
        served.assert_equal("public.t")


@pytest.mark.slow
def test_types_become_wider(served: Case) -> None:
    served.database.execute(
        "create table t (id int primary key, a smallint, b int, c varchar(5), d numeric(6,2), e real, f timestamp, g int not null)",
        "insert into t select i, i, i, 'c' || i, i / 7.0, i / 7.0, '2020-01-01 00:00:00.5', i from generate_series(1, 50) i",
    )
    served.define(settings=QUICK)
    with served.running():
        streaming(served)
        served.database.execute(
            "alter table t alter a type int, alter b type bigint, alter c type text, alter d type numeric(12,4), alter e type float8",
            "alter table t alter g drop not null",
            "insert into t values (51, 1e9, 1e15, 'longer than five', 12345678.1234, 1e300, '2020-01-01', null)",
        )
        served.wait_for("select count() from t_current where b = 1000000000000000 and g is null", 1)
        served.assert_equal("public.t")
        assert columns(served)["b"] == "Nullable(Int64)"
        served.database.execute(
            "set timezone = 'UTC'; alter table t alter f type timestamptz; insert into t values (52)",
            "set timezone = 'Asia/Tokyo'; alter table t add column h timestamp default '2020-01-01 12:00'",
        )
        served.wait_for("select count() from t_current", 52)
        served.wait_until(lambda: "h" in columns(served), "the column is there", 20)
        served.assert_equal("public.t")
        served.database.execute(
            "set timezone = 'Asia/Tokyo'; alter table t alter h type timestamptz; insert into t values (53)"
        )
        served.wait_for("select count() from t_current where toHour(h) = 3", 53, 30)
        served.assert_equal("public.t")
        served.database.execute("alter table t alter b type bigint using b * 2")
        served.wait_for("select count() from t_current where b = id * 2", 50, 30)
        served.assert_equal("public.t")
        served.database.execute("alter table t alter id type bigint", f"insert into t values ({1 << 40})")
        served.wait_for(f"select count() from t_current where id = {1 << 40}", 1, 30)
        served.assert_equal("public.t")


@pytest.mark.slow
def test_another_type_sets_the_table_aside(served: Case) -> None:
    served.database.execute(*TABLE, "create table u (id int primary key)")
    served.define(settings=QUICK)
    with served.running(expect=1):
        streaming(served, 2)
        served.database.execute(
            "begin; insert into t values (101, '7', 1); alter table t alter n type text using n || '!';"
            " insert into t values (102, '8', 'x'); insert into u values (1); commit"
        )
        served.wait_for("select count() from u_current", 1)
        served.wait_until(lambda: "table set aside" in served.log(), "the table is set aside")
        assert served.query("select count() from t_current") == [["101"]]
        assert 'column \\"n\\" has another type' in served.log()
    served.define(settings=QUICK + '\non_type_change = "resync"')
    served.penstock("resync", str(served.file), "public.t")
    with served.running():
        served.wait_for("select count() from t_current where n = '100!'", 1)
        served.assert_equal("public.t")
        served.database.execute("alter table t alter v type int using id", "insert into t values (103, 8, 'x')")
        served.wait_for("select count() from t_current where v = 100", 1, 30)
        served.assert_equal("public.t")


def test_changes_while_the_pipe_was_down(served: Case) -> None:
    served.database.execute(*TABLE, "create table u (id int primary key, a int)")
    served.define()
    served.once()
    served.database.execute(
        "insert into t values (101, 'a', 1)",
        "alter table t add column w int default 5",
        "insert into t values (102, 'b', 2, 3)",
        "alter table t rename v to text",
        "insert into t values (103, 'c', 2, 3)",
        "alter table t drop column n",
        "insert into t values (104, 'd', 2)",
        "alter table t add column z text",
        "insert into t values (105, 'e', 2, 'z')",
        "alter table u add column b int default 9",
        "insert into u values (1, 1, 1)",
    )
    served.once()
    served.assert_equal("public.t", "public.u")
    served.database.execute("alter table u drop column a")
    served.once()
    served.assert_equal("public.u")
    assert list(columns(served, "u_current")) == ["id", "b"]


def test_a_type_that_went_and_came_back(served: Case) -> None:
    """The catalog shows nothing of it; what the rows between were written as is not the publication's doing."""
    served.database.execute(*TABLE)
    served.define()
    served.once()
    served.database.execute(
        "alter table t alter n type text using n || '!'",
        "insert into t values (101, 'between', 'no number')",
        "delete from t where id = 101",
        "alter table t alter n type int using -length(n)",
        "insert into t values (102, 'after', 8)",
    )
    served.once()
    served.assert_equal("public.t")


@pytest.mark.slow
@pytest.mark.pg("== 18")
@pytest.mark.parametrize("shape", ["history", "null", "keyless"])
def test_other_shapes(served: Case, shape: str) -> None:
    served.database.execute(*TABLE)
    if shape == "keyless":
        served.database.execute("alter table t drop constraint t_pkey, replica identity full")
    else:
        served.define(settings=QUICK, options=f'[tables.options."public.t"]\nshape = "{shape}"')
    if shape == "keyless":
        served.define(settings=QUICK)
    with served.running():
        streaming(served)
        served.database.execute(
            "alter table t add column w int default 5, drop column v",
            "alter table t rename n to m",
            "insert into t values (101, 1, 2)",
        )
        served.wait_until(lambda: "m" in columns(served, "t"), "the column has its name", 20)
        if shape == "keyless":
            served.wait_for("select count() from t_current", 101)
            served.assert_equal("public.t")
        if shape == "history":
            served.wait_for("select count() from t final", 101)
            assert served.query("select m, w from t where id in (100, 101) order by id") == [["100", "5"], ["1", "2"]]


@pytest.mark.slow
def test_columns_of_new_types_and_what_a_rewrite_leaves(served: Case) -> None:
    """A default is gone from the catalog after VACUUM FULL; the pipe may come only then."""
    served.database.execute(*TABLE)
    served.define(settings=QUICK)
    served.once()
    served.database.execute(
        "begin; create type mood as enum ('sad', 'it''s fine'); alter table t add column m mood not null default 'it''s fine';"
        " alter table t add column g int generated always as (id * 2) stored; insert into t values (101, 'x', 1, 'sad'); commit",
        "alter table t add column at timestamptz default now()",
        "alter table t add column b bytea default '\\x00ff27', add column a int[] default '{1,null}'",
        "vacuum full t",
        "insert into t values (102, 'y', 2)",
        "alter type mood add value 'new'",
        "update t set m = 'new' where id = 7",
    )
    served.once()
    served.assert_equal("public.t")
    with served.running():
        served.database.execute(
            "alter table t add column j jsonb default '{\"a\": [1, 2]}'",
            "alter table t add column d date default '2020-02-02', alter v set not null",
        )
        served.wait_until(lambda: {"j", "d"} <= columns(served).keys(), "the columns are there", 20)
        served.assert_equal("public.t")
    assert "g" not in columns(served)
