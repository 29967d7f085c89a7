"""Who waits for whom: no table waits for ever for another, and the stream for none of them."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.acceptance.test_again import held_up
from tests.fix_pipe import QUICK, streaming

if TYPE_CHECKING:
    from tests.fix_pipe import Case

pytestmark = pytest.mark.pg("== 15")


def test_a_truncate_of_a_table_whose_copy_has_no_place_yet(served: Case) -> None:
    """Whoever has the place waits for a change behind the TRUNCATE: the stream must not wait for who waits for the place."""
    rows = "select g, repeat('x', 50) from generate_series(1, 5000) g"
    served.database.execute(
        "create table a (id int primary key, v text)",
        f"insert into a {rows}",
        "create table b (id int primary key, v text)",
        f"insert into b {rows}",
    )
    served.define(settings=f"{QUICK}\ncopy_tables = 2\ncopy_part_rows = 300")
    served.once(failpoint="within a copy part:8", expect=-9)  # of both
    served.define(settings=f"{QUICK}\ncopy_tables = 1")
    served.database.execute(
        "insert into b (id) select g from generate_series(6000, 300000) g",
        "truncate b",
        "insert into b values (2)",
        "alter table a rename v to w",
        "insert into a values (6000)",
    )
    served.once()
    served.assert_equal("public.a", "public.b")


def stuck(case: Case) -> None:
    """A row of the table ``slow`` waits, and ClickHouse does not take it."""
    case.database.execute("insert into slow values (2)")
    case.wait_until(lambda: "trying again" in case.log(), "the row is refused")


def with_slow(case: Case, *statements: str, settings: str = "") -> None:
    case.database.execute(
        "create table slow (id int primary key, day date)",
        "insert into slow values (1)",
        "create table other (id int primary key)",
        *statements,
    )
    case.define(settings=f"{QUICK}\n{settings}")
    case.once()


def flows(case: Case) -> None:
    """What concerns no other table arrives."""
    case.database.execute("insert into other values (1)")
    case.wait_for("select count() from other_current", 1, seconds=20)


def test_a_truncate_of_a_table_that_cannot_be_written(served: Case) -> None:
    with_slow(served)
    with served.running():
        with held_up(served, "slow"):
            stuck(served)
            served.database.execute("truncate slow", "insert into slow values (40)")
            flows(served)
        served.wait_for("select sum(id) from slow_current", 40)
        served.assert_equal("public.slow")


def test_a_value_that_sets_a_table_aside_that_cannot_be_written(served: Case) -> None:
    with_slow(served, settings='on_unfit = "fail"')
    with served.running(expect=1):
        with held_up(served, "slow"):
            stuck(served)
            served.database.execute("insert into slow values (3, '4713-01-01 BC')")
            flows(served)
        served.wait_until(lambda: "set aside" in served.log(), "it is set aside")
        served.wait_for("select count() from slow_current", 2)


@pytest.mark.slow
def test_a_table_that_is_altered_while_its_copy_cannot_be_written(served: Case) -> None:
    """The copy leaves no transaction open at the source for long."""
    served.database.execute(
        "create table slow (id int primary key)", "insert into slow select generate_series(1, 200000)"
    )
    served.define(settings=f"{QUICK}\nmax_batch_rows = 5000")
    served.once(failpoint="within a copy part", expect=-9)
    with contextlib.ExitStack() as held:
        held.enter_context(held_up(served, "slow"))
        with served.running():
            served.wait_until(lambda: "trying again" in served.log(), "the copy is refused")
            served.database.execute("set lock_timeout = '30s'; alter table slow add v text default 'x'")
            held.close()
            streaming(served)
    served.once()
    served.assert_equal("public.slow")


def test_a_new_connection_while_a_table_cannot_be_written(served: Case) -> None:
    """The log needs one when its copy has its snapshot."""
    with_slow(served, "create table log (id int)", "alter table log replica identity full")
    with served.running():
        served.database.execute("insert into log values (1)")
        served.wait_for("select count() from log_current", 1)
        with held_up(served, "slow"):
            stuck(served)
            assert served.penstock("resync", str(served.file), "public.log").returncode == 0
            served.wait_until(lambda: served.log().count("stream open") > 1, "there is a new connection", seconds=20)
            flows(served)
        streaming(served)
        served.database.execute("insert into log values (2)")
        served.wait_for("select count() from log_current", 2)
        served.assert_equal("public.slow", "public.log")


def test_many_tables_that_wait_for_a_transaction(served: Case) -> None:
    """More of them than there are threads."""
    names = [f"t{number}" for number in range(26)]
    with_slow(served, *(f"create table {name} (id int primary key)" for name in names))
    with served.running(), served.database.connect() as old:
        old.execute("begin; insert into slow values (9)")
        tables = [f"public.{name}" for name in names]
        assert served.penstock("resync", str(served.file), *tables).returncode == 0
        served.wait_until(lambda: "began before it" in served.log(), "the copies wait")
        served.wait_for(
            "select count() from system.tables where database = 'shop' and name like '%_fresh_%'", len(names)
        )
        flows(served)
        old.execute("commit")
        streaming(served, len(names))


def test_a_new_table_that_may_not_be_published(served: Case) -> None:
    """Only an owner may: it is refused, and neither the others nor the end wait for it."""
    with served.database.connect() as admin:
        admin.execute("create role weak login replication password 'penstock'")
        try:
            admin.execute(
                "create table mine (id int primary key); insert into mine values (1); alter table mine owner to weak"
            )
            admin.execute(f'grant create on database "{served.database.name}" to weak')
            served.source_dsn = served.database.server.dsn(served.database.name, user="weak", password="penstock")
            served.define(settings=QUICK)
            served.once()
            admin.execute("create table theirs (id int primary key); create table own (id int primary key)")
            admin.execute("alter table own owner to weak; insert into own values (1); insert into mine values (2)")
            done = served.once(expect=1)
            assert "must be owner of table theirs" in done.stderr
            served.assert_equal("public.mine", "public.own")
        finally:
            admin.execute("drop owned by weak; drop role weak")


def test_a_copy_that_meets_what_nobody_thought_of(served: Case) -> None:
    """Here a state that cannot be read: the pipe ends, instead of waiting for the copy."""
    served.database.execute("create table t (id int primary key)", "insert into t values (1)")
    served.define(settings=QUICK)
    served.once(failpoint="within a copy part", expect=-9)
    with sqlite3.connect(served.home / "state.db") as state:
        assert state.execute("update parts set body = 'nonsense'").rowcount == 1
    served.once(expect=1)


def test_a_pipe_that_the_source_takes_for_a_standby(served: Case) -> None:
    """Commits at the source wait for the pipe: its own must not, as there is no stream yet."""
    served.database.execute("create table t (id int primary key)", "insert into t values (1)")
    served.define(settings=QUICK)
    with served.database.connect() as admin:
        admin.execute("set synchronous_commit = local")
        try:
            admin.execute("""alter system set synchronous_standby_names = '"penstock shop"'""")
            admin.execute("select pg_reload_conf()")
            served.once()
            served.assert_equal("public.t")
        finally:
            admin.execute("alter system reset synchronous_standby_names")
            admin.execute("select pg_reload_conf()")


def test_a_commit_that_waits_for_the_pipe_that_waits_for_the_commit(served: Case) -> None:
    """The log leads to the check, and what the check prints ends it."""
    served.database.execute("create table t (id int primary key)", "insert into t values (1)")
    served.define(settings=QUICK)
    with served.database.connect() as admin, served.database.connect() as writer, ThreadPoolExecutor(1) as pool:
        admin.execute("set synchronous_commit = local")
        try:
            admin.execute("""alter system set synchronous_standby_names = 'FIRST 1 ("Penstock SHOP")'""")
            admin.execute("select pg_reload_conf()")
            with served.running():
                streaming(served)
                written = pool.submit(writer.execute, "insert into t values (2)")
                served.wait_until(lambda: "penstock check says whether" in served.log(), "the log tells")
                done = served.penstock("check", str(served.file), "--json")
                assert done.returncode == 3, done.stderr
                (found,) = [each for each in json.loads(done.stdout) if each["check"] == "synchronous_standby_names"]
                assert (found["severity"], written.done()) == ("blocking", False)
                for statement in found["fix"]["sql"]:
                    admin.execute(statement)
                written.result(20)
                served.wait_for("select count() from t_current", 2)
                assert served.penstock("check", str(served.file)).returncode == 0
        finally:
            admin.execute("alter system reset synchronous_standby_names")
            admin.execute("select pg_reload_conf()")


@pytest.mark.slow
def test_what_a_part_that_was_given_up_had_counted(served: Case) -> None:
    """It is read again, and counts once."""
    assert served.server
    served.database.execute(
        "create table slow (id int primary key, day date)",
        "insert into slow select g, case g % 100 when 0 then '4713-01-01 BC'::date end from generate_series(1, 300000) g",
    )
    served.define(settings=f"{QUICK}\nmax_batch_rows = 5000\ncopy_part_rows = 1000000\ncopy_workers = 1")
    served.once(failpoint="within a copy part", expect=-9)
    served.server.query("system stop merges shop.slow")
    served.server.query("alter table shop.slow modify setting parts_to_throw_insert = 2, parts_to_delay_insert = 2")
    copying = (
        "select count(*) from pg_stat_activity where datname = current_database() and xact_start is not null"
        " and pid <> pg_backend_pid() and state <> 'active'"
    )
    with served.running():
        served.wait_until(lambda: "trying again" in served.log(), "a later batch is refused")
        served.wait_until(lambda: served.database.fetch(copying) != [(0,)], "its part is being read")
        served.wait_until(lambda: served.database.fetch(copying) == [(0,)], "the part is given up")
        served.server.query("alter table shop.slow reset setting parts_to_throw_insert, parts_to_delay_insert")
        served.server.query("system start merges shop.slow")
        streaming(served)
    assert served.counted()["public.slow"] == {"unfit day: out of range": 3000}
    (table,) = served.status()["tables"]
    assert table["rows_copied"] == 300000
    assert served.query("select count() from slow_current") == [["300000"]]
