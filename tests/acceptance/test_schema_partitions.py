"""Partitions and children that come, go and are emptied while the pipe runs; TRUNCATE."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import QUICK, streaming

if TYPE_CHECKING:
    from tests.fix_pipe import Case

PARTED = (
    "create table t (id int, v text, primary key (id)) partition by range (id)",
    "create table t1 partition of t for values from (0) to (100)",
    "create table t2 (extra int, v text, id int not null, primary key (id))",
    "alter table t2 drop column extra",
    "alter table t attach partition t2 for values from (100) to (200)",
    "insert into t select i, 'v' || i from generate_series(50, 149) i",
)


def test_partitions_come_and_go(served: Case) -> None:
    served.database.execute(*PARTED, "create table u (id int primary key)")
    served.define(settings=QUICK, tables='include = ["public.t", "public.u", "public.old*"]')
    with served.running():
        streaming(served, 2)
        served.database.execute(
            "create table t3 partition of t for values from (200) to (300)",
            "insert into t select i, 'new' from generate_series(200, 249) i",
            "update t set id = id + 200 where id between 50 and 59",
        )
        served.wait_until_equal("public.t")
        served.database.execute(
            "create table t4 (id int primary key, v text)",
            "insert into t4 select i, 'brought along' from generate_series(300, 349) i",
            "alter table t attach partition t4 for values from (300) to (400)",
            "update t set v = 'changed' where id in (305, 120)",
            "delete from t where id = 306",
        )
        served.wait_until_equal("public.t")
        assert "copied again" not in served.log()
        served.database.execute(
            "insert into t values (399, 'x')", "alter table t detach partition t1", "alter table t1 rename to old1"
        )
        served.wait_until_equal("public.t")
        served.wait_for("select count() from old1_current", 40)
        served.wait_until_equal("public.old1")
        served.database.execute("drop table t2", "insert into t values (398, 'y')")
        served.wait_until_equal("public.t")
        served.database.execute("truncate t3", "insert into t values (201, 'after')")
        served.wait_until_equal("public.t")
        served.database.execute(
            "create table t5 partition of t for values from (400) to (600) partition by range (id)",
            "create table t51 partition of t5 for values from (400) to (500)",
            "insert into t values (450, 'two levels')",
        )
        served.wait_until_equal("public.t")
        before = served.log().count("copied again")
        served.database.execute("truncate t", "insert into t values (451, 'after')", "insert into u values (1)")
        served.wait_until_equal("public.t")
        served.wait_for("select count() from u_current", 1)
        served.database.execute("create table old2 (id int primary key)")
        served.wait_until(lambda: "table=public.old2" in served.log(), "the catalog was looked at since the TRUNCATE")
        assert served.log().count("copied again") == before
        served.database.execute("alter table t add column w int default 6", "insert into t values (452, 'x', 7)")
        served.wait_until_equal("public.t")
    served.database.execute(
        "drop table t51",
        "create table t6 partition of t for values from (600) to (700)",
        "insert into t values (601)",
    )
    served.once()
    served.assert_equal("public.t", "public.u", "public.old1")


@pytest.mark.slow
def test_children_are_tables_of_their_own(served: Case) -> None:
    served.database.execute("create table p (id int primary key, v text)", "insert into p values (1, 'parent')")
    served.define(settings=QUICK)
    with served.running():
        streaming(served)
        served.database.execute(
            "create table c (more int, primary key (id)) inherits (p)",
            "insert into c values (2, 'child', 3)",
            "alter table p add column w int default 4",
        )
        served.wait_for("select count(w) from c_current", 1)
        served.wait_for("select count(w) from p_current", 1)
        served.database.execute("alter table c no inherit p", "insert into c values (5, 'own', 3, 4)", "truncate p")
        served.wait_for("select count() from c_current", 2)
        served.wait_for("select count() from p_current", 0)


@pytest.mark.parametrize("mode", ["apply", "ignore"])
def test_truncate(served: Case, mode: str) -> None:
    served.database.execute(
        "create table t (id serial primary key, v text)",
        "create table child (id int primary key, t int references t)",
        "create table other (id int primary key)",
        "insert into t (v) select 'x' from generate_series(1, 50)",
        "insert into child select i, i from generate_series(1, 50) i",
        "insert into other values (1)",
    )
    served.define(settings=f'{QUICK}\non_truncate = "{mode}"')
    with served.running():
        streaming(served, 3)
        served.database.execute(
            "begin; insert into t (v) values ('before'); truncate t restart identity cascade; insert into t (v) values ('after');"
            " insert into child values (1000, 1); commit",
            "begin; insert into other values (2); truncate other, child; insert into other values (3); commit",
            "begin; truncate other; rollback",
            "insert into other values (4)",
        )
        kept = {"apply": ("1", "0", "2"), "ignore": ("51", "51", "4")}[mode]
        served.wait_for("select count() from other_current", kept[2])
        served.wait_for("select count() from t_current", kept[0])
        served.wait_for("select count() from child_current", kept[1])
        assert served.query("select v from t_current where id = 1") == [["after"]]
    served.once()
    assert served.query("select count() from t_current") == [[kept[0]]]


@pytest.mark.slow
def test_truncate_while_the_table_is_copied(served: Case) -> None:
    served.database.execute(
        "create table t (id int primary key, v text)",
        "insert into t select i, repeat('x', 500) from generate_series(1, 20000) i",
    )
    served.define(settings=QUICK + "\ncopy_part_rows = 500\ncopy_workers = 1\nmax_batch_rows = 500")
    with served.running():
        served.wait_for("select count() > 0 from t", 1)
        served.database.execute(
            "begin; insert into t values (0, 'a'); truncate t; insert into t values (1, 'b'); commit"
        )
        streaming(served)
        served.wait_until_equal("public.t")
        assert served.query("select id, v from t_current") == [["1", "b"]]


def test_every_partition_is_dropped_while_the_table_is_copied(served: Case) -> None:
    served.database.execute(
        "create table t (id int, v text, primary key (id)) partition by range (id)",
        "create table low partition of t for values from (0) to (10000)",
        "create table high partition of t for values from (10000) to (20000)",
        "insert into t select i, repeat('x', 500) from generate_series(0, 19999) i",
    )
    served.define(
        settings=QUICK + "\ncopy_part_rows = 500\ncopy_workers = 1\nmax_batch_rows = 500",
        tables='include = ["public.t"]',
    )
    with served.running():
        served.wait_for("select count() > 0 from t", 1)
        served.database.execute("drop table low", "drop table high")
        streaming(served)
        served.wait_until_equal("public.t")
        served.database.execute(
            "create table again partition of t for values from (0) to (10000)", "insert into t values (1, 'b')"
        )
        served.wait_for("select count() from t_current where v = 'b'", 1)
        served.wait_until_equal("public.t")


def test_a_table_that_has_become_a_partition(served: Case) -> None:
    """It stays published: on 12 its rows come as its own."""
    served.database.execute(
        "create table t (id int primary key) partition by range (id)",
        "create table t1 partition of t for values from (0) to (100)",
        "create table t2 (id int primary key)",
        "insert into t values (1)",
        "insert into t2 values (101)",
    )
    served.define()
    served.once()
    served.database.execute(
        "alter table t attach partition t2 for values from (100) to (200)", "insert into t values (102)"
    )
    served.once(expect=1)  # what was a table of its own is set aside, which is said once
    for number in (103, 104):
        served.database.execute(f"insert into t values ({number})")
        served.once()
    served.assert_equal("public.t")


@pytest.mark.slow
@pytest.mark.pg("== 12")
def test_a_partition_that_somebody_keeps_locked(served: Case) -> None:
    """12 publishes each of them: its table waits, and no other."""
    served.database.execute(*PARTED, "create table u (id int primary key)")
    served.define(settings=QUICK)
    with served.running() as process, served.database.connect(application_name="slowpoke") as other:
        streaming(served, 2)
        other.execute("begin; create table t3 partition of t for values from (200) to (300)")
        other.execute("insert into t values (200, 'new'); commit and chain; lock table t3 in share mode")
        said = rf"waits for the lock of public\.t3: PID {other.info.backend_pid} \(.*slowpoke"
        served.wait_until(lambda: re.search(said, served.log()) is not None, "it is said")
        served.database.execute("insert into u values (1)")
        served.wait_for("select count() from u_current", 1, seconds=20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(8) == 0, served.log()[-3000:]
        with served.running():
            served.database.execute("insert into u values (2)")
            served.wait_for("select count() from u_current", 2, seconds=20)
            other.execute("commit")
            served.database.execute("insert into t values (201, 'newer')")
            served.wait_until_equal("public.t")
