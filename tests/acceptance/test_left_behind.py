"""A table that ClickHouse refuses for long is left behind: the others go on, and what it lacks is read again when it is accepted."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest
from tests.acceptance.test_again import held_up
from tests.acceptance.test_waits import flows, stuck, with_slow
from tests.fix_pipe import QUICK, streaming

if TYPE_CHECKING:
    from tests.fix_pipe import Case

pytestmark = pytest.mark.pg("== 15")

MUCH = "select g, repeat(md5(g::text), 20) from generate_series(10, 150000) g"  # more than may wait in memory
SMALL = 'max_batch_bytes = "8MiB"'


def left_behind(case: Case) -> None:
    """More of ``slow`` has changed than may wait in memory, and ClickHouse takes none of it."""
    case.database.execute("alter table slow add v text")
    stuck(case)
    case.database.execute(f"insert into slow (id, v) {MUCH}")
    case.wait_until(lambda: "left behind" in case.log(), "it makes room for the others")
    flows(case)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["current", "history"])
def test_more_than_memory_holds_of_a_table_that_cannot_be_written(served: Case, shape: str) -> None:
    """The others go on; what it lacks is read again when it can be written, under the definitions of then."""
    with_slow(served)
    served.define(options=f'[tables.options."public.slow"]\nshape = "{shape}"', settings=f"{QUICK}\n{SMALL}")
    served.penstock("resync", str(served.file), "public.slow")
    with served.running():
        streaming(served)
        with held_up(served, "slow"):
            left_behind(served)
            served.database.execute(
                "update slow set day = '2026-01-01' where id < 20",
                "alter table slow rename v to w",
                "alter table slow add x int default 7",
                "delete from slow where id = 30",
                "insert into slow (id, w) values (3, 'last')",
                "insert into other values (2)",
            )
            served.wait_for("select count() from other_current", 2)
        served.wait_for("select count() from slow where id = 3", 1)
        served.database.execute("insert into slow (id) values (4)", "insert into other values (3)")
        served.wait_for("select count() from slow where id = 4 and x = 7", 1)
        served.wait_for("select count() from other_current", 3)
    served.once()
    if shape == "current":
        served.assert_equal("public.slow", "public.other")
    else:
        changes = served.query("select _operation, count(), uniqExact(id) from slow final group by all order by all")
        assert changes == [
            ["copy", "1", "1"],
            ["insert", "149994", "149994"],
            ["update", "12", "12"],
            ["delete", "1", "1"],
        ]


@pytest.mark.slow
@pytest.mark.parametrize("signal", [9, 15])
def test_the_end_of_a_pipe_that_has_left_a_table_behind(served: Case, signal: int) -> None:
    with_slow(served, settings=SMALL)
    with served.running() as process, held_up(served, "slow"):
        left_behind(served)
        served.database.execute("truncate slow", "insert into slow (id, v) values (1, 'new')")
        served.database.execute("insert into other values (2)")
        served.wait_for("select count() from other_current", 2)
        process.send_signal(signal)
        process.wait(20)
    served.once()
    served.assert_equal("public.slow", "public.other")


@pytest.mark.slow
def test_a_table_that_was_left_behind_is_dropped(served: Case) -> None:
    with_slow(served, settings=SMALL)
    with served.running(expect=1):
        with held_up(served, "slow"):
            left_behind(served)
            served.database.execute(
                "insert into slow (id) values (5)", "drop table slow", "insert into other values (2)"
            )
            served.wait_for("select count() from other_current", 2)
        served.wait_until(lambda: "was dropped" in served.log(), "it is set aside")
        served.wait_for("select count() from slow where id = 5", 1)


@pytest.mark.slow
def test_a_table_that_cannot_be_written_is_to_be_copied_again(served: Case) -> None:
    """What waits for it before that keeps no room from the others."""
    with_slow(served, settings='max_batch_bytes = "256MiB"\nmax_batch_rows = 1000000')
    with served.running():
        with held_up(served, "slow"):
            served.database.execute("alter table slow add v text")
            stuck(served)
            served.database.execute(f"insert into slow (id, v) {MUCH}", "insert into other values (2)")
            served.wait_for("select count() from other_current", 1)
            assert served.penstock("resync", str(served.file), "public.slow").returncode == 0
            served.wait_until(lambda: "copied again" in served.log(), "it is asked for")
            served.database.execute("insert into other values (3)")
            served.wait_for("select count() from other_current", 2, seconds=25)
        streaming(served)
        served.wait_until_equal("public.slow")


@pytest.mark.slow
@pytest.mark.parametrize("then", ["alter table early rename v to w", "drop table early"])
def test_a_copy_that_cannot_be_written_while_others_make_room(served: Case, then: str) -> None:
    """Of its changes none waits, and it is in nobody's way: the stream comes to what the copy waits for."""
    with_slow(
        served,
        "create table early (id int primary key, v text)",
        "insert into early select g, 'x' from generate_series(1, 200000) g",
        settings=f"{SMALL}\nmax_batch_rows = 5000\ncopy_workers = 1",
    )
    served.penstock("resync", str(served.file), "public.early")
    served.once(failpoint="within a copy part", expect=-9)
    ((fresh,),) = served.query("select name from system.tables where database = 'shop' and name like 'early_fresh%'")
    assert fresh
    with contextlib.ExitStack() as held:
        held.enter_context(held_up(served, fresh))
        held.enter_context(held_up(served, "slow"))
        with served.running(expect=int("drop" in then)):
            served.wait_until(lambda: re.search(r"trying again.*early", served.log()) is not None, "it is refused")
            left_behind(served)
            served.database.execute(then)
            held.close()
            served.wait_until(
                lambda: re.search("table (set aside|streaming)", served.log()) is not None, "it has an end"
            )
            served.wait_until_equal("public.slow")
            if "drop" not in then:
                served.wait_until_equal("public.early")


@pytest.mark.slow
def test_a_table_that_was_left_behind_is_copied_again(served: Case) -> None:
    with_slow(served, settings=SMALL)
    with served.running():
        with held_up(served, "slow"):
            left_behind(served)
            assert served.penstock("resync", str(served.file), "public.slow").returncode == 0
            served.wait_until(lambda: "copied again" in served.log(), "it is asked for")
            served.database.execute(
                "truncate slow", "insert into slow (id, v) values (1, 'new')", "insert into other values (2)"
            )
            served.wait_for("select count() from other_current", 2)
        streaming(served)
        served.wait_until_equal("public.slow")


@pytest.mark.slow
def test_a_log_that_was_left_behind(served: Case) -> None:
    """Rows that are alike: each comes once, and goes once."""
    with_slow(
        served,
        "create table log (id int, v text)",
        "alter table log replica identity full",
        "insert into log select 1 from generate_series(1, 5)",
        settings=SMALL,
    )
    with served.running():
        with held_up(served, "log"):
            served.database.execute("insert into log values (2, 'a')")
            served.wait_until(lambda: "trying again" in served.log(), "it is refused")
            served.database.execute(
                f"insert into log {MUCH}",
                "delete from log where ctid in (select ctid from log where id = 1 limit 2)",
                "insert into log values (1, 'again'), (1, 'again')",
                "alter table log add x int default 3",
                "insert into log values (7), (7)",
                "delete from log where ctid in (select ctid from log where id = 7 limit 1)",
            )
            served.wait_until(lambda: "left behind" in served.log(), "it makes room for the others")
            flows(served)
        served.wait_until_equal("public.log")
    served.once()
    served.assert_equal("public.log")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statements", "tables"),
    [
        pytest.param(
            ("drop table slow", "create table slow (id int primary key, w text)", "insert into slow values (7, 'new')"),
            ("slow",),
            id="made again",
        ),
        pytest.param(
            (
                "alter table slow rename to moved",
                "create table slow (id int primary key)",
                "insert into slow values (7)",
            ),
            ("slow", "moved"),
            id="its name goes to another",
        ),
        pytest.param(
            (
                "delete from slow where day is null and id < 1000",
                "alter table slow drop constraint slow_pkey, add column n int not null default 1",
                "alter table slow add primary key (id, n)",
                "truncate slow",
                "insert into slow (id) values (9)",
                "alter table slow alter v type int using 1",
            ),
            ("slow",),
            id="another key",
        ),
    ],
)
def test_another_definition_of_a_table_that_was_left_behind(
    served: Case, statements: tuple[str, ...], tables: tuple[str, ...]
) -> None:
    with_slow(served, settings=SMALL)
    with served.running():
        with held_up(served, "slow"):
            left_behind(served)
            served.database.execute("insert into slow (id) values (5)", *statements, "insert into other values (2)")
            served.wait_for("select count() from other_current", 2)
        served.wait_until_equal(*(f"public.{table}" for table in tables))
        served.database.execute("insert into other values (3)")
        served.wait_for("select count() from other_current", 3)
    served.once()
    served.assert_equal("public.other", *(f"public.{table}" for table in tables))


@pytest.mark.slow
def test_tables_that_are_left_behind_one_of_which_is_about_to_be_exchanged(served: Case) -> None:
    """Its new table is complete, and waits for the stream, which waits for the other table."""
    with_slow(served, "create table early (id int primary key, v text)", "insert into early values (1)", settings=SMALL)
    with served.running(), contextlib.ExitStack() as holding:
        slow_holding = holding.enter_context(contextlib.ExitStack())
        slow_holding.enter_context(held_up(served, "slow"))
        stuck(served)
        assert served.penstock("resync", str(served.file), "public.early").returncode == 0
        served.wait_until(lambda: "table copied" in served.log(), "it is copied")
        ((fresh,),) = served.query(
            "select name from system.tables where database = 'shop' and name like 'early_fresh%'"
        )
        assert fresh
        holding.enter_context(held_up(served, fresh))
        served.database.execute("insert into early values (2)")
        served.wait_until(lambda: f"{fresh}: too many" in served.log(), "it is refused")
        served.database.execute(f"insert into early {MUCH}", "delete from early where id = 10")
        served.wait_until(lambda: "left behind" in served.log(), "it makes room for the others")
        served.database.execute("alter table slow add v text", f"insert into slow (id, v) {MUCH}")
        served.wait_until(lambda: served.log().count("left behind") == 2, "and so does the other")
        flows(served)
        slow_holding.close()
        served.wait_until_equal("public.slow")
        served.database.execute("truncate early", "insert into early values (3)")
        holding.close()
        served.wait_until_equal("public.early")
    served.once()
    served.assert_equal("public.slow", "public.early", "public.other")
