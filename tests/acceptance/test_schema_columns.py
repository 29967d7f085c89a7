"""Columns that come, go, change their names and types while the pipe runs, or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fix_pipe import Case

QUICK = 'flush_interval = "50ms"'
TABLE = (
    "create table t (id int primary key, v text, n int)",
    "insert into t select i, 'v' || i, i from generate_series(1, 100) i",
)


def streaming(case: Case, tables: int = 1) -> None:
    case.wait_until(lambda: case.log().count("table streaming") >= tables, "the tables stream")


def columns(case: Case, table: str = "t_current") -> dict[str, str]:
    rows = case.query(f"select name, type from system.columns where database = 'shop' and table = '{table}'")
    return {str(name): str(type_) for name, type_ in rows}


def test_columns_are_added_within_a_transaction(embedded: Case) -> None:
    """Each row is read by the version of the table under which it was written."""
    embedded.database.execute(*TABLE, "create table u (id int primary key, v text)")
    embedded.define(settings=QUICK)
    with embedded.running():
        streaming(embedded, 2)
        embedded.database.execute(
            "begin; insert into t values (1001, 'before', 1); insert into u values (1, 'before');"
            " alter table t add column w int; insert into t values (1002, 'after', 2, 8);"
            " alter table t add column x text not null default 'it''s \\ x'; alter table t add column y numeric(10,2) default 1.50;"
            " insert into t values (1003, 'later', 3, 9, 'own', null); update t set n = n + 1 where id = 5;"
            " insert into u values (2, 'after'); commit"
        )
        embedded.wait_for("select count() from u_current", 2)
        embedded.wait_for("select count() from t_current where x = 'own'", 1)
        embedded.assert_equal("public.t", "public.u")
        embedded.database.execute("update t set w = 5, y = 7 where id < 10", "delete from t where id = 11")
        embedded.wait_for("select count() from t_current where w = 5", 9)
        embedded.assert_equal("public.t", "public.u")
    embedded.once()
    embedded.assert_equal("public.t", "public.u")
    assert "copied again" not in embedded.log()


def test_a_column_appears_by_itself(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.define(settings=QUICK)
    with embedded.running():
        streaming(embedded)
        embedded.database.execute("alter table t add column at timestamptz default '2020-02-03 04:05:06.789+00'")
        embedded.wait_until(lambda: "at" in columns(embedded), "the column is there", 20)
        embedded.assert_equal("public.t")


def test_a_volatile_default_is_read_again(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.define(settings=QUICK)
    with embedded.running():
        streaming(embedded)
        embedded.database.execute(
            "begin; insert into t values (1001, 'before', 1); update t set n = 0 where id = 7; delete from t where id = 8;"
            " alter table t add column r double precision default random(), add column s serial;"
            " insert into t values (1002, 'after', 2); update t set n = -1 where id = 9; commit"
        )
        embedded.wait_for("select count() from t_current where r is null or s = 0", 0)
        embedded.wait_for("select count() from t_current", 101)
        embedded.assert_equal("public.t")
        embedded.database.execute("update t set r = 2 where id < 50", "delete from t where id between 40 and 60")
        embedded.wait_for("select count() from t_current", 80)
        embedded.wait_for("select count() from t_current where r = 2", 38)
        embedded.assert_equal("public.t")
        streaming(embedded, 2)


def test_columns_are_dropped_and_come_again(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.define(settings=QUICK)
    with embedded.running():
        streaming(embedded)
        embedded.database.execute("alter table t drop column v", "insert into t values (101, 1)")
        embedded.wait_for("select count() from t_current", 101)
        assert list(columns(embedded)) == ["id", "n"]
        assert embedded.query("select id, v from t where id in (100, 101) order by id") == [
            ["100", "v100"],
            ["101", None],
        ]
        embedded.database.execute("alter table t add column v int default 3", "insert into t values (102, 1, 4)")
        embedded.wait_for("select count() from t_current", 102)
        embedded.assert_equal("public.t")
        embedded.database.execute(
            "begin; alter table t drop column v; alter table t add column v text; insert into t values (103, 1, 'x'); commit"
        )
        embedded.wait_for("select count() from t_current", 103)
        embedded.assert_equal("public.t")
    assert "copied again" not in embedded.log()


def test_a_column_made_again_with_the_same_type(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.define(settings=QUICK)
    with embedded.running():
        streaming(embedded)
        embedded.database.execute(
            "begin; insert into t values (101, 'old', 1); alter table t drop column v; alter table t add column v text;"
            " insert into t values (102, 1, 'x'); commit"
        )
        embedded.wait_for("select count() from t_current where v is not null", 1)
        embedded.wait_for("select count() from t_current", 102)
        embedded.assert_equal("public.t")


def test_columns_are_dropped_here_too(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.define(settings=QUICK + '\non_drop_column = "drop"')
    with embedded.running():
        streaming(embedded)
        embedded.database.execute("alter table t drop column v", "insert into t values (101, 1)")
        embedded.wait_for("select count() from t_current", 101)
        assert "v" not in columns(embedded, "t")
        embedded.assert_equal("public.t")


def test_columns_are_renamed(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.define(settings=QUICK)
    with embedded.running():
        streaming(embedded)
        embedded.database.execute(
            "begin; insert into t values (101, 'a', 1); alter table t rename v to text; insert into t values (102, 'b', 1); commit",
            "alter table t rename n to number",
        )
        embedded.wait_until(lambda: list(columns(embedded)) == ["id", "text", "number"], "both have their names", 20)
        embedded.assert_equal("public.t")
        assert "copied again" not in embedded.log()
        embedded.database.execute("begin; alter table t rename text to x; alter table t rename number to text; commit")
        embedded.wait_until(lambda: list(columns(embedded)) == ["id", "x", "text"], "the names have moved", 30)
        embedded.assert_equal("public.t")
        embedded.database.execute("alter table t rename id to key", "insert into t values (103, 'c', 1)")
        embedded.wait_for("select count(key) from t_current", 103)
        embedded.assert_equal("public.t")


def test_types_become_wider(embedded: Case) -> None:
    embedded.database.execute(
        "create table t (id int primary key, a smallint, b int, c varchar(5), d numeric(6,2), e real, f timestamp, g int not null)",
        "insert into t select i, i, i, 'c' || i, i / 7.0, i / 7.0, '2020-01-01 00:00:00.5', i from generate_series(1, 50) i",
    )
    embedded.define(settings=QUICK)
    with embedded.running():
        streaming(embedded)
        embedded.database.execute(
            "alter table t alter a type int, alter b type bigint, alter c type text, alter d type numeric(12,4), alter e type float8",
            "alter table t alter g drop not null",
            "insert into t values (51, 1e9, 1e15, 'longer than five', 12345678.1234, 1e300, '2020-01-01', null)",
        )
        embedded.wait_for("select count() from t_current where b = 1000000000000000 and g is null", 1)
        embedded.assert_equal("public.t")
        assert columns(embedded)["b"] == "Nullable(Int64)"
        embedded.database.execute(
            "set timezone = 'UTC'; alter table t alter f type timestamptz; insert into t values (52)",
            "set timezone = 'Asia/Tokyo'; alter table t add column h timestamp default '2020-01-01 12:00'",
        )
        embedded.wait_for("select count() from t_current", 52)
        embedded.wait_until(lambda: "h" in columns(embedded), "the column is there", 20)
        embedded.assert_equal("public.t")
        embedded.database.execute(
            "set timezone = 'Asia/Tokyo'; alter table t alter h type timestamptz; insert into t values (53)"
        )
        embedded.wait_for("select count() from t_current where toHour(h) = 3", 53, 30)
        embedded.assert_equal("public.t")
        embedded.database.execute("alter table t alter b type bigint using b * 2")
        embedded.wait_for("select count() from t_current where b = id * 2", 50, 30)
        embedded.assert_equal("public.t")
        embedded.database.execute("alter table t alter id type bigint", f"insert into t values ({1 << 40})")
        embedded.wait_for(f"select count() from t_current where id = {1 << 40}", 1, 30)
        embedded.assert_equal("public.t")


def test_another_type_sets_the_table_aside(embedded: Case) -> None:
    embedded.database.execute(*TABLE, "create table u (id int primary key)")
    embedded.define(settings=QUICK)
    with embedded.running(expect=1):
        streaming(embedded, 2)
        embedded.database.execute(
            "begin; insert into t values (101, '7', 1); alter table t alter n type text using n || '!';"
            " insert into t values (102, '8', 'x'); insert into u values (1); commit"
        )
        embedded.wait_for("select count() from u_current", 1)
        embedded.wait_until(lambda: "table set aside" in embedded.log(), "the table is set aside")
        assert embedded.query("select count() from t_current") == [["101"]]
        assert 'column \\"n\\" has another type' in embedded.log()
    embedded.define(settings=QUICK + '\non_type_change = "resync"')
    embedded.penstock("resync", str(embedded.file), "public.t")
    with embedded.running():
        embedded.wait_for("select count() from t_current where n = '100!'", 1)
        embedded.assert_equal("public.t")
        embedded.database.execute("alter table t alter v type int using id", "insert into t values (103, 8, 'x')")
        embedded.wait_for("select count() from t_current where v = 100", 1, 30)
        embedded.assert_equal("public.t")


def test_changes_while_the_pipe_was_down(embedded: Case) -> None:
    embedded.database.execute(*TABLE, "create table u (id int primary key, a int)")
    embedded.define()
    embedded.once()
    embedded.database.execute(
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
    embedded.once()
    embedded.assert_equal("public.t", "public.u")
    embedded.database.execute("alter table u drop column a")
    embedded.once()
    embedded.assert_equal("public.u")
    assert list(columns(embedded, "u_current")) == ["id", "b"]


@pytest.mark.pg("== 18")
@pytest.mark.parametrize("shape", ["history", "null", "keyless"])
def test_other_shapes(embedded: Case, shape: str) -> None:
    embedded.database.execute(*TABLE)
    if shape == "keyless":
        embedded.database.execute("alter table t drop constraint t_pkey, replica identity full")
    else:
        embedded.define(settings=QUICK, options=f'[tables.options."public.t"]\nshape = "{shape}"')
    if shape == "keyless":
        embedded.define(settings=QUICK)
    with embedded.running():
        streaming(embedded)
        embedded.database.execute(
            "alter table t add column w int default 5, drop column v",
            "alter table t rename n to m",
            "insert into t values (101, 1, 2)",
        )
        embedded.wait_until(lambda: "m" in columns(embedded, "t"), "the column has its name", 20)
        if shape == "keyless":
            embedded.wait_for("select count() from t_current", 101)
            embedded.assert_equal("public.t")
        if shape == "history":
            embedded.wait_for("select count() from t final", 101)
            assert embedded.query("select m, w from t where id in (100, 101) order by id") == [["100", "5"], ["1", "2"]]
