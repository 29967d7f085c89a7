"""Other people's hands on the source: slots held or dropped, publications and tables that go, change and come."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import conninfo, pq
from tests.acceptance.test_again import held_up
from tests.fix_pipe import QUICK, Case
from tests.load import TABLES, load, make_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.pg("== 15")
START = b"START_REPLICATION SLOT penstock_shop LOGICAL 0/0 (proto_version '1', publication_names 'penstock_shop')"
TWO = ("create table t (id int primary key, v text)", "create table u (id int primary key, v text)")


@contextlib.contextmanager
def slot_held(case: Case, **parameters: str) -> Iterator[int]:
    """Somebody else streams from the pipe's slot; gives the process at the server."""
    dsn = conninfo.make_conninfo(case.database.dsn, **parameters)
    with psycopg.connect(dsn, replication="database", autocommit=True) as connection:  # type: ignore[call-overload]
        connection.pgconn.send_query(START)
        result = connection.pgconn.get_result()
        assert result is not None
        assert result.status == pq.ExecStatus.COPY_BOTH
        yield connection.pgconn.backend_pid
        connection.pgconn.finish()


def ends(case: Case, code: int = 1) -> str:
    """The pipe ends by itself, without a traceback; its log."""
    assert case.process is not None
    assert case.process.wait(60) == code, case.log()
    assert "Traceback" not in case.log()
    return case.log()


def test_a_slot_that_somebody_else_holds_for_a_while(embedded: Case) -> None:
    embedded.database.execute(*TWO)
    embedded.define()
    embedded.once()
    embedded.database.execute("insert into t values (1, 'x')")
    command = embedded.command("run", str(embedded.file), "--once")
    with contextlib.ExitStack() as holding:
        pid = holding.enter_context(slot_held(embedded))
        with embedded.started(command) as process:
            embedded.wait_until(lambda: f"active for PID {pid}" in embedded.log(), "the pipe says who holds the slot")
            holding.close()
            assert process.wait(30) == 0, embedded.log()
    embedded.assert_equal("public.t")


def test_a_slot_that_somebody_else_takes_while_the_pipe_runs(embedded: Case) -> None:
    """Even under the pipe's own name: its former session is not this one."""
    embedded.database.execute(*TWO)
    embedded.define()
    with embedded.running():
        embedded.wait_until(lambda: embedded.log().count("table streaming") == 2, "the tables stream")
        with contextlib.ExitStack() as holding:
            taken: list[int] = []

            def take() -> bool:
                with contextlib.suppress(psycopg.Error, AssertionError):
                    taken.append(holding.enter_context(slot_held(embedded, application_name="penstock shop")))
                return bool(taken)

            while not taken:  # the pipe comes back at once: be faster
                embedded.database.execute(
                    "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'penstock_shop'"
                )
                take()
            embedded.wait_until(
                lambda: f"active for PID {taken[0]}" in embedded.log(), "the pipe says who holds the slot"
            )
            embedded.database.execute("insert into t values (1, 'x')")
            held = "select active_pid from pg_replication_slots where slot_name = 'penstock_shop'"
            refusals = f"active for PID {taken[0]}"
            before = embedded.database.server.log.count(refusals)
            embedded.wait_until(
                lambda: embedded.database.server.log.count(refusals) >= before + 3, "the pipe has tried again and again"
            )
            assert embedded.database.fetch(held) == [(taken[0],)]
        embedded.wait_for("select count() from t_current", 1)
    assert "former session ended" not in embedded.log()


@pytest.mark.slow
def test_a_slot_that_somebody_else_keeps(embedded: Case) -> None:
    embedded.database.execute(*TWO)
    embedded.define()
    embedded.once()
    with slot_held(embedded) as pid:
        done = embedded.penstock("run", str(embedded.file))
    assert done.returncode == 1
    assert re.search(rf'error: .*"penstock_shop".*PID {pid}', done.stderr)
    assert "pg_terminate_backend" in done.stderr


def test_the_slot_is_dropped_while_the_pipe_runs(embedded: Case) -> None:
    embedded.database.execute(*TWO)
    embedded.define()
    with embedded.running():
        with embedded.database.connect() as connection:
            dropped = False
            while not dropped:  # the pipe comes back at once: be faster
                connection.execute(
                    "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'penstock_shop'"
                )
                with contextlib.suppress(psycopg.errors.ObjectInUse):
                    connection.execute("select pg_drop_replication_slot('penstock_shop')")
                    dropped = True
        log = ends(embedded)
    assert re.search(
        r'error: the replication slot "penstock_shop" is gone, .* since \w+/\w+\n next: .*penstock resync PIPE.toml --all',
        log,
    )


@pytest.mark.pg(">= 12")
def test_the_publication_is_dropped_while_the_pipe_runs(embedded: Case) -> None:
    embedded.database.execute(*TWO)
    embedded.define(settings=QUICK)
    with embedded.running():
        embedded.wait_until(lambda: embedded.log().count("table streaming") == 2, "the tables stream")
        embedded.database.execute("drop publication penstock_shop", "insert into t values (1, 'lost from here on')")
        log = ends(embedded)
    assert re.search(r"error: .*publication.*\n next: .*again", log)
    again = embedded.penstock("run", str(embedded.file))
    assert again.returncode == 1, "it must not go on as if nothing had happened"
    assert re.search(r"error: .*publication.*\n next: .*again", again.stderr)


@pytest.mark.slow
def test_a_table_is_taken_out_of_the_publication(embedded: Case) -> None:
    embedded.database.execute(*TWO)
    embedded.define()
    embedded.once()
    embedded.database.execute(
        "alter publication penstock_shop drop table t",
        "insert into t values (1, 'unseen')",
        "insert into u values (1, 'seen')",
    )
    done = embedded.penstock("run", str(embedded.file), "--once")
    assert done.returncode == 1
    assert re.search(r"public\.t .*publication", done.stderr)
    embedded.assert_equal("public.u")
    embedded.penstock("resync", str(embedded.file), "public.t")
    embedded.once()
    embedded.assert_equal("public.t", "public.u")


@pytest.mark.pg(">= 12")
@pytest.mark.parametrize("what", ["drop table t", "alter publication penstock_shop drop table t"])
def test_a_table_goes_while_the_pipe_runs(embedded: Case, what: str) -> None:
    embedded.database.execute(*TWO)
    embedded.define(settings=QUICK)
    with embedded.running(expect=1):
        embedded.wait_until(lambda: embedded.log().count("table streaming") == 2, "the tables stream")
        embedded.database.execute("insert into t values (1, 'x')", what, "insert into u values (1, 'y')")
        embedded.wait_for("select count() from u_current", 1)
        embedded.wait_until(lambda: "table set aside" in embedded.log(), "the table is set aside")
        embedded.database.execute("insert into u values (2, 'z')")
        embedded.wait_for("select count() from u_current", 2)
    assert re.search(r"table set aside.* table=public\.t ", embedded.log())
    assert "Traceback" not in embedded.log()


def test_a_table_is_dropped_while_it_is_copied(embedded: Case) -> None:
    embedded.database.execute(*TWO, "insert into t select i, repeat('x', 500) from generate_series(1, 20000) i")
    embedded.define(settings="copy_part_rows = 500\ncopy_workers = 1\nmax_batch_rows = 500")
    with embedded.running(expect=1):
        embedded.wait_for("select count() > 0 from t", 1)
        embedded.database.execute("drop table t", "insert into u values (1, 'y')")
        embedded.wait_for("select count() from u_current", 1)
        embedded.wait_until(lambda: "table set aside" in embedded.log(), "the table is set aside")
    assert re.search(r"table set aside.* table=public\.t .*dropped", embedded.log())
    assert "Traceback" not in embedded.log()


def test_a_table_is_dropped_before_an_update_is_complete(served: Case) -> None:
    """The left-out value has to be read again, which cannot be done any more: the row stays as it was; those before and behind it come."""
    served.database.execute(
        *TWO, "alter table t add n int, alter v set storage external", "insert into t values (1, repeat('x', 9000))"
    )
    served.define(tables='include = ["public.t"]', settings=f"{QUICK}\nmax_batch_rows = 3")
    served.once(failpoint="after a copy part", expect=-9)
    served.database.execute(
        "insert into t values (10), (11), (12)",
        "insert into t values (2)",
        "update t set n = 1 where id = 1",
        "insert into t values (3)",
    )
    with contextlib.ExitStack() as held:
        held.enter_context(held_up(served, "t"))
        with served.running(expect=1):
            served.wait_until(lambda: "trying again" in served.log(), "the rows wait")
            served.database.execute("insert into t values (4)", "drop table t")
            held.close()
            served.wait_until(lambda: "table set aside" in served.log(), "the table is set aside")
    assert re.search(r"table set aside.* table=public\.t .*dropped", served.log())
    assert served.query("select id, length(v) from t_current where id < 10 order by id") == [
        ["1", "9000"],
        ["2", None],
        ["3", None],
        ["4", None],
    ]


@pytest.mark.slow
def test_a_type_changes_in_the_middle_of_a_transaction(embedded: Case) -> None:
    embedded.database.execute(*TWO)
    embedded.define(settings=QUICK)
    with embedded.running(expect=1):
        embedded.wait_until(lambda: embedded.log().count("table streaming") == 2, "the tables stream")
        embedded.database.execute(
            "begin; insert into t values (1, 'before'); insert into u values (1, 'before');"
            " alter table t alter v type int using 5; insert into t values (2, 8);"
            " insert into u values (2, 'after'); commit"
        )
        embedded.wait_for("select count() from u_current", 2)
        embedded.wait_until(lambda: "table set aside" in embedded.log(), "the table is set aside")
        (goal,) = embedded.database.fetch("select pg_current_wal_insert_lsn()")[0]
        moved = "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = 'penstock_shop'"
        embedded.wait_until(lambda: embedded.database.fetch(moved, goal) == [(True,)], "the slot moves on")
        assert embedded.query("select id, v from t_current") == [["1", "before"]]
    embedded.penstock("resync", str(embedded.file), "public.t")
    embedded.once()
    embedded.assert_equal("public.t", "public.u")


@pytest.mark.pg(">= 12")
def test_two_pipes_with_one_source_and_one_home(embedded: Case) -> None:
    make_tables(embedded.database)
    embedded.define(settings=QUICK)
    other = Case(embedded.folder / "other", embedded.database, f"chdb://{embedded.folder}/other/chdb", name="other")
    other.folder.mkdir()
    other.environment["PENSTOCK_HOME"] = str(embedded.home)
    other.define(settings=QUICK)
    with embedded.running(), other.running():
        with load(embedded.database) as work:
            work.wait_for_commits(300)
        embedded.database.execute("insert into a values (1000000, 0, 'last')")
        for each in (embedded, other):
            each.wait_for("select count() from a_current where id = 1000000", 1)
            each.wait_until_equal(*TABLES)
            assert "Traceback" not in each.log()


@pytest.mark.pg(">= 12")
def test_the_source_is_busy_with_an_old_transaction(embedded: Case) -> None:
    embedded.database.execute(*TWO, "insert into t values (1, 'x')")
    embedded.define()
    with embedded.database.connect() as old, embedded.database.connect() as preparing:
        old.execute("begin; insert into t values (2, 'open')")
        preparing.execute("begin; insert into u values (1, 'prepared'); prepare transaction 'held up'")
        began = time.monotonic()
        with embedded.started(embedded.command("run", str(embedded.file))) as process:
            embedded.wait_until(
                lambda: f"PID {old.info.backend_pid} " in embedded.log(), "the pipe says whom it waits for"
            )
            old.execute("commit")
            embedded.wait_until(
                lambda: "prepared transaction 'held up'" in embedded.log(), "the pipe says whom it waits for next"
            )
            preparing.execute("commit prepared 'held up'")
            embedded.process = process
            embedded.wait_until(lambda: embedded.log().count("table streaming") == 2, "the tables stream")
            process.terminate()
            assert process.wait(12) == 0
        embedded.process = None
        assert time.monotonic() - began < 60
    embedded.assert_equal("public.t", "public.u")
