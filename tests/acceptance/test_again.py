"""What comes again, or later than it was meant to, finds what the former time left: no row is lost, doubled or another's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_pipe import Case


def test_a_log_that_was_set_aside_when_it_was_announced(served: Case) -> None:
    """It is copied anew on the same connection, which announces it no second time."""
    served.database.execute(
        "create table t (id int)",
        "alter table t replica identity full",
        "insert into t values (1)",
        "create table other (id int primary key)",
    )
    served.define(settings=QUICK)
    served.once()
    assert served.server
    served.server.query("drop table shop.t sync")
    with served.running():
        served.database.execute("insert into t values (2); insert into other values (2)")
        served.wait_for("select count() from other_current", 1)
        assert served.penstock("resync", str(served.file), "public.t").returncode == 0
        with served.database.connect() as connection:  # into the copy, and what comes between it and the stream
            while "table streaming" not in served.log():
                connection.execute("insert into t values (3)")
        served.database.execute("insert into t values (4)")
        served.wait_for("select count() from t_current where id = 4", 1)
        served.assert_equal("public.t")


@pytest.mark.slow
@pytest.mark.pg(">= 15")
def test_a_row_that_leaves_the_row_filter_and_comes_back(served: Case) -> None:
    """Within one batch: what it was before it left is stored, and by now it is another value."""
    served.database.execute(
        "create table t (id int not null, shown bool not null, big text, primary key (id, shown))",
        "alter table t alter big set storage external",
        "insert into t values (1, true, repeat('a', 9000)), (2, true, repeat('a', 9000))",
        "create publication given for table t where (shown)",
    )
    served.define(source='publication = "given"')
    served.once()
    served.database.execute(
        "update t set shown = false",
        "update t set big = repeat('b', 9000)",
        "update t set shown = true",
    )
    served.once()
    served.assert_equal("public.t")


@contextmanager
def held_up(case: Case, table: str) -> Iterator[None]:
    """ClickHouse takes no rows of this table, so the position stays where it is, whatever the others do. It must hold a row."""
    assert case.server
    limits = ("parts_to_throw_insert", "parts_to_delay_insert")
    case.server.query(f"alter table shop.{table} modify setting {', '.join(f'{each} = 1' for each in limits)}")
    try:
        yield
    finally:
        case.server.query(f"alter table shop.{table} reset setting {', '.join(limits)}")


def test_what_was_behind_a_table_comes_again(served: Case) -> None:
    """From long before the place from which on a table's rows count: another table has held up the position."""
    served.database.execute(
        "create table slow (id int primary key)",
        "insert into slow values (1)",
        "create table emptied (id int primary key)",
        "insert into emptied values (1)",
        "create table parted (id int primary key) partition by range (id)",
        "create table parted1 partition of parted for values from (0) to (100)",
        "create table parted_rest partition of parted default",
        "insert into parted values (160)",
        "create table parted2 (id int primary key)",
        "insert into parted2 values (150)",
    )
    served.define(settings=QUICK)
    served.once()
    with served.running() as process, held_up(served, "slow"):
        served.database.execute(
            "insert into slow values (2)",
            "insert into emptied values (2), (3)",
            "truncate emptied",
            "insert into emptied values (4); insert into parted values (1)",
        )
        served.wait_for("select sum(id) from emptied_current", 4)
        served.wait_for("select count() from parted_current", 2)
        assert served.penstock("resync", str(served.file), "public.emptied").returncode == 0
        served.wait_until(lambda: "table copied" in served.log(), "the table is copied anew")
        served.database.execute(
            "with moved as (delete from parted where id = 160 returning id) insert into parted2 select id from moved",
            "alter table parted attach partition parted2 for values from (100) to (200)",
        )
        served.wait_until(lambda: "table altered" in served.log(), "the partition is known")
        process.kill()
        process.wait()
    served.database.execute("insert into parted values (2)")
    served.once()
    served.assert_equal("public.slow", "public.emptied", "public.parted")


@pytest.mark.slow
@pytest.mark.pg(">= 13")
def test_a_partition_that_is_attached_again_has_other_rows(served: Case) -> None:
    """At once, so that nobody has seen it gone; what happened to it meanwhile was not in the stream."""
    served.database.execute(
        "create table t (id int primary key, v int) partition by range (id)",
        "create table t1 partition of t for values from (0) to (100)",
        "create table t2 partition of t for values from (100) to (200)",
        "insert into t values (1, 1), (2, 2), (101, 1)",
    )
    served.define(settings=QUICK)
    served.once()
    with served.running():
        served.database.execute(
            "begin; alter table t detach partition t1; delete from t1 where id = 1; update t1 set v = 3; insert into t1 values (5, 5);"
            "alter table t attach partition t1 for values from (0) to (100); commit",
            "insert into t values (6, 6), (106, 6)",
        )
        served.wait_until(lambda: not served.differences("public.t"), "all is there")


def test_a_transaction_that_wrote_to_a_table_that_was_new(served: Case) -> None:
    """An old walsender may be blind to the table at first (postgres.md 10), and send its rows in between when all comes again."""
    database = served.database
    database.execute(
        "create table slow (id int primary key)",
        "insert into slow values (1)",
        "create table log (id int)",
        "alter table log replica identity full",
        "create table past (id int primary key)",
        "create publication given for table slow, log, past",
    )
    served.define(
        settings=QUICK, source='publication = "given"', options='[tables.options."public.past"]\nshape = "history"'
    )
    served.once()
    database.execute("create table new (id int)", "alter table new replica identity full")
    with served.running() as process, database.connect() as fence, database.connect() as before:
        fence.execute("begin; insert into log values (-1)")  # for which the new table's copy waits
        before.execute("begin; insert into new values (-1)")
        database.execute("alter publication given add table new")
        before.execute("commit")
        database.execute("insert into log values (0)")
        served.wait_for("select count() from log_current", 1)
        ((position,),) = database.fetch("select pg_current_wal_insert_lsn()")
        database.execute("insert into past values (0)")
        confirmed = (
            f"select confirmed_flush_lsn >= '{position}' from pg_replication_slots where database = current_database()"
        )
        served.wait_until(lambda: database.fetch(confirmed) == [(True,)], "what was before is confirmed")
        with held_up(served, "slow"):
            writes = [f"insert into {name} values ({n})" for n in range(1, 9) for name in ("new", "log", "past")]
            database.execute("insert into slow values (2)", f"begin; {'; '.join(writes)}; commit")
            served.wait_for("select count() from log_current", 9)
            served.wait_for("select count() from past final", 9)
            process.kill()
            process.wait()
        fence.execute("commit")
    served.once()
    served.assert_equal("public.slow", "public.log", "public.new")
    assert served.query("select count(), max(id) from past final") == [["9", "8"]]


def test_a_truncate_before_a_change_that_the_copy_waits_for(served: Case) -> None:
    """The copy waits for the stream to come to the change, and the stream, at the TRUNCATE, for the end of the copy."""
    served.database.execute(
        "create table t (id int primary key, v int)",
        "insert into t select g from generate_series(1, 50) g",
        "create table much (id int primary key)",
    )
    served.define(settings=QUICK)
    served.once(failpoint="within a copy part", expect=-9)
    served.database.execute(
        "insert into much select g from generate_series(1, 300000) g",
        "truncate t",
        "insert into t values (1, 2)",
        "alter table t rename v to w",
        "insert into t values (3, 4)",
    )
    served.once()
    served.assert_equal("public.t", "public.much")
