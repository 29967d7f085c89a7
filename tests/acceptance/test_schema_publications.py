"""Publications of the user's own, which are changed while the pipe runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import QUICK, streaming

if TYPE_CHECKING:
    from tests.fix_pipe import Case

OWN = 'publication = "given"'


@pytest.mark.slow
def test_tables_are_added_and_dropped(served: Case) -> None:
    parted = "parted1" if served.database.server.version < 13 else "parted"  # 12 cannot publish the root
    served.database.execute(
        "create table t (id int primary key)",
        "create table u (id int primary key)",
        "create table parted (id int primary key) partition by range (id)",
        "create table parted1 partition of parted for values from (0) to (100)",
        "insert into parted values (1)",
        "create publication given for table t",
    )
    served.define(settings=QUICK, source=OWN, tables='include = ["public.t"]')
    served.once()
    served.define(settings=QUICK, source=OWN, tables='include = ["public.*"]')
    with served.running():
        served.wait_until(lambda: served.log().count("table is not published") == 2, "the others are named")
        served.database.execute(
            "insert into u values (1)", f"alter publication given add table u, {parted}", "insert into u values (2)"
        )
        served.wait_for("select count() from u_current", 2)
        served.wait_for("select count() from parted_current", 1)
        served.database.execute("insert into parted values (2)", "delete from u where id = 1")
        served.wait_for("select count() from parted_current", 2)
        served.assert_equal("public.u", "public.parted")
        served.database.execute(
            "alter publication given drop table u", "insert into u values (3)", "insert into t values (9)"
        )
        served.wait_until(lambda: "table set aside" in served.log(), "the table is set aside")
        assert re.search(r"table set aside.* table=public\.u .*not in the publication", served.log())
        served.wait_for("select count() from t_current", 1)
        served.database.execute("alter publication given add table u")
        served.penstock("resync", str(served.file), "public.u")
        served.wait_for("select count() from u_current", 2)
        served.database.execute("insert into u values (4)")
        served.wait_for("select count() from u_current", 3)


@pytest.mark.pg(">= 15")
def test_columns_and_rows_are_narrowed(served: Case) -> None:
    served.database.execute(
        "create table t (id int primary key, v text, secret text)",
        "insert into t select i, 'v' || i, 'x' from generate_series(1, 100) i",
        "create publication given for table t (id, v) where (id > 50)",
    )
    served.define(settings=QUICK, source=OWN)
    with served.running():
        streaming(served)
        assert served.query("select count(), min(id) from t_current") == [["50", "51"]]
        served.database.execute(
            "update t set id = 1000 where id = 5",
            "update t set id = 6000 where id = 60",
            "update t set id = -70 where id = 70",
        )
        served.wait_for("select count() from t_current where id in (1000, 6000)", 2)
        served.wait_for("select count() from t_current", 50)
        assert served.query("select name from system.columns where database = 'shop' and table = 't_current'") == [
            ["id"],
            ["v"],
        ]
        served.database.execute("alter publication given set table t (id, v, secret) where (id > 50)")
        served.wait_for("select count() from t_current where secret = 'x'", 50)
        served.database.execute("alter publication given set table t", "insert into t values (0, 'all', 'y')")
        served.wait_for("select count() from t_current", 101)
        served.assert_equal("public.t")


def is_out_for_a_while(case: Case, what: str) -> None:
    """While the pipe is down, and within a moment: what changed meanwhile is in no stream."""
    case.database.execute(
        "create schema other",
        "create table other.t (id int primary key)",
        "create table u (id int primary key)",
        "create publication given for table u",
        f"alter publication given add {what}",
    )
    away = (
        f"alter publication given drop {what}",
        "insert into other.t values ({})",
        f"alter publication given add {what}",
    )
    case.define(settings=QUICK, source=OWN, tables='include = ["public.u", "other.*"]')
    with case.running():
        streaming(case, 2)
        case.database.execute("insert into other.t values (1)")
        case.wait_for("select count() from t_current", 1)
    case.database.execute(*(each.format(2) for each in away))
    with case.running():
        case.wait_for("select count() from t_current", 2)
        streaming(case, 3)
        case.database.execute(*(each.format(3) for each in away))
        case.wait_for("select count() from t_current", 3)
        streaming(case, 4)
    assert case.log().count("taken out of the publication for a while") == 2
    assert case.log().count("table is copied again") == 2


def test_a_table_is_out_of_the_publication_for_a_while(served: Case) -> None:
    is_out_for_a_while(served, "table other.t")


@pytest.mark.pg(">= 15")
def test_a_schema_is_out_of_the_publication_for_a_while(served: Case) -> None:
    is_out_for_a_while(served, "tables in schema other")


@pytest.mark.slow
@pytest.mark.pg(">= 18")
def test_generated_columns_are_published(served: Case) -> None:
    served.database.execute(
        "create table t (id int primary key, twice int generated always as (id * 2) stored)",
        "insert into t select generate_series(1, 10)",
        "create publication given for table t with (publish_generated_columns = stored)",
    )
    served.define(settings=QUICK, source=OWN)
    with served.running():
        streaming(served)
        served.database.execute(
            "insert into t values (11)", "alter table t add column thrice int generated always as (id * 3) stored"
        )
        served.database.execute("insert into t values (12)")
        served.wait_for("select count() from t_current where twice = id * 2 and thrice = id * 3", 12)


@pytest.mark.slow
def test_deletes_are_not_published(served: Case) -> None:
    served.database.execute(
        "create table t (id int primary key, v int)",
        "insert into t values (1, 1), (2, 2)",
        "create publication given for table t with (publish = 'insert, update')",
    )
    served.define(settings=QUICK, source=OWN)
    with served.running():
        streaming(served)
        served.database.execute(
            "delete from t where id = 1", "update t set v = 3 where id = 2", "truncate t", "insert into t values (3, 3)"
        )
        served.wait_for("select count() from t_current", 3)
        assert served.query("select v from t_current where id = 2") == [["3"]]


@pytest.mark.slow
def test_the_publication_is_made_again(served: Case) -> None:
    """PostgreSQL cannot decode what was written before there was one: the pipe says so and ends."""
    served.database.execute("create table t (id int primary key)", "create publication given for table t")
    served.define(settings=QUICK, source=OWN)
    served.once()
    served.database.execute(
        "drop publication given", "insert into t values (1)", "create publication given for table t"
    )
    done = served.penstock("run", str(served.file), "--once")
    if done.returncode:
        assert "publication" in done.stderr
        assert re.search("opy (the tables )?again", done.stderr)
        assert served.penstock("drop", str(served.file), "--tables").returncode == 0
        served.once()
    served.assert_equal("public.t")
