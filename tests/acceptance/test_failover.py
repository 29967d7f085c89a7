"""A standby is promoted, and the endpoint leads there: the pipe follows, and no row is lost, doubled, or from a time that never was."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest
from tests.fix_postgres import Database, drop_database, until
from tests.load import TABLES, load, make_tables

from penstock.control.store import StateStore
from penstock.pipeline.lifecycle import State

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from tests.fix_pipe import Case
    from tests.fix_standby import Cluster
    from tests.servers.postgres import PostgresServer

QUICK = 'flush_interval = "50ms"\ncopy_part_rows = 2000\nmax_batch_rows = 500'


def wait_until_streaming(case: Case) -> None:
    case.wait_until(lambda: case.log().count("table streaming") == 2, "both tables stream")


@contextlib.contextmanager
def streaming(
    case: Case, cluster: Cluster, *, rows: int = 2000, more: str = "", expect: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """A pipe that streams both tables, and whose slot the first standby has."""
    make_tables(cluster.database, rows)
    case.define(settings=f"{QUICK}\n{more}")
    with case.running(expect=expect) as process:
        wait_until_streaming(case)
        cluster.synchronize()
        yield process


def assert_the_end_arrives(case: Case, cluster: Cluster, *tables: str) -> None:
    """What is committed last arrives, and then both ends are equal."""
    case.database = cluster.database
    case.database.execute("insert into a values (1000000, 0, 'last') on conflict (id) do update set v = a.v + 1")
    case.wait_for("select count() from a_current where id = 1000000", 1)
    case.wait_until_equal(*(tables or TABLES))
    assert "Traceback" not in case.log()


@pytest.mark.pg_all
@pytest.mark.pg(">= 17")
def test_a_promotion_under_load_loses_nothing(followed: Case, cluster: Cluster) -> None:
    """The primary dies without a word; the slot was kept by the standby, and what the pipe had was there before."""
    with streaming(followed, cluster):
        with load(cluster) as work:
            work.wait_for_commits(200)
            cluster.promote(lost=True)
            work.wait_for_commits(100)
        assert_the_end_arrives(followed, cluster)
    said = followed.log()
    assert re.search(r"failover .*timeline=.?1 to 2", said)
    assert re.search(r'"source is back" away=', said)
    assert "set aside" not in said
    followed.once()
    followed.assert_equal(*TABLES)


@pytest.mark.pg("== 17")
@pytest.mark.parametrize("pipe_is", ["running", pytest.param("stopped", marks=pytest.mark.slow)])
def test_what_the_source_lost_is_set_aside_and_copied_again(followed: Case, cluster: Cluster, pipe_is: str) -> None:
    """The standby was behind: table a has rows in the destination that never were. b was not touched, and goes on."""
    cluster.let_wait_for("")
    with streaming(followed, cluster, expect=-9 if pipe_is == "stopped" else 0) as process:
        cluster.hold_back(cluster.standbys[0])
        cluster.database.execute(
            "insert into a select i, -7, 'lost' from generate_series(10001, 10100) i",
            "update a set v = -7 where id <= 50",
            "delete from a where id between 100 and 200",
        )
        followed.wait_for("select count() from a_current where v = -7", 150)
        followed.wait_for("select count() from a_current where id between 100 and 200", 0)
        if pipe_is == "stopped":
            process.kill()
            process.wait()
        cluster.promote(lost=True)
        if pipe_is == "running":
            _repair(followed, cluster)
    if pipe_is == "stopped":
        with followed.running():
            _repair(followed, cluster)
    followed.once()
    followed.assert_equal(*TABLES)


@pytest.mark.slow
@pytest.mark.pg("== 17")
def test_a_crash_after_an_exchange_hides_nothing_that_was_lost(followed: Case, cluster: Cluster) -> None:
    """The new table has taken the old one's place, which the pipe does not know yet, when it ends and the source fails over."""
    cluster.let_wait_for("")
    with streaming(followed, cluster, expect=-9) as process:
        cluster.hold_back(cluster.standbys[0])
        cluster.database.execute("update a set v = -7 where id <= 50")
        followed.wait_for("select count() from a_current where v = -7", 50)
        process.kill()
        process.wait()
    store = StateStore(followed.home)
    (a,) = [each for each in store.tables("shop") if each.full_name == "public.a"]
    ((uuid,),) = followed.query("select uuid from system.tables where database = 'shop' and name = 'a'")
    a.state, a.building, a.building_id = State.CATCHING_UP, a.fresh, str(uuid)
    store.save_table("shop", a)
    store.close()
    cluster.promote(lost=True)
    with followed.running():
        assert_the_end_arrives(followed, cluster)
    assert "copy starts over" in followed.log()


@pytest.mark.slow
@pytest.mark.pg("== 17")
def test_a_standby_that_holds_up_the_stream_is_named(followed: Case, cluster: Cluster) -> None:
    standby = cluster.standbys[0]
    with streaming(followed, cluster, rows=10):
        standby.stop()
        cluster.database.execute("insert into a values (1000, 0, 'late')")
        named = "synchronized_standby_slots lack: standby_1 (not connected)"
        followed.wait_until(lambda: named in followed.log(), "the pipe says whom it waits for")
        assert named in _note(followed)
        standby.start()
        assert_the_end_arrives(followed, cluster)
        followed.wait_until(lambda: not _note(followed), "nothing is waited for any more")
    assert followed.log().count(named) == 1


def _note(case: Case) -> str:
    return str(case.status()["note"])


def _repair(case: Case, cluster: Cluster) -> None:
    case.wait_until(lambda: "table set aside" in case.log(), "the pipe says what happened")
    case.database = cluster.database
    cluster.database.execute("update b set v = v + 1 where n < 100", "update a set v = v + 1 where id < 20")
    until(lambda: not case.differences("public.b"), 10)
    said = case.log()
    assert re.search(
        r"timeline 1 to 2\) as it stood at \w+/\w+, and public.a has changes up to \w+/\w+ .* \d+ bytes of WAL further",
        said,
    )
    assert "penstock resync PIPE.toml public.a" in said
    assert case.query("select count() from a_current where v = -7") == [["150"]]  # as it was
    case.penstock("resync", str(case.file), "public.a")
    case.wait_until(lambda: not case.differences("public.a"), "a is copied again")
    assert_the_end_arrives(case, cluster)


@pytest.mark.pg("<= 15")
def test_the_slot_is_gone_after_a_promotion(followed: Case, cluster: Cluster) -> None:
    """Before 17 nothing keeps it. The pipe ends and says what to do, and that works; meanwhile the rows are readable."""
    make_tables(cluster.database)
    followed.define(settings=QUICK)
    followed.once()
    cluster.wait_until_followed()
    cluster.promote()
    followed.database = cluster.database
    cluster.database.execute("delete from a where id % 2 = 0", "update b set v = v + 1")
    done = followed.once(expect=1)
    assert re.search(r'slot "penstock_shop" is gone.*timeline from 1 to 2', done.stderr.replace("\n", " "))
    assert "penstock resync PIPE.toml --all" in done.stderr.replace("\n", " ")
    assert followed.penstock("resync", str(followed.file), "--all").returncode == 0
    assert followed.query("select count() from a_current") == [["2000"]]
    followed.once()
    followed.assert_equal(*TABLES)
    cluster.database.execute("insert into a values (-1, 0, 'new')", "delete from b where n < 50")
    followed.once()
    followed.assert_equal(*TABLES)


@pytest.mark.pg("== 17")
def test_the_endpoint_moves_and_the_old_connections_live_on(followed: Case, cluster: Cluster) -> None:
    """DNS leads to another server, and the old primary does not know: what it commits from then on never happened."""
    with streaming(followed, cluster):
        cluster.wait_until_followed()
        cluster.promote(old_lives=True)
        cluster.database.execute("insert into b select 'after', i, 0 from generate_series(1, 100) i")
        followed.wait_for("select count() from b_current where k = 'after'", 100, 20)
        assert "leads to another server" in followed.log()
        assert_the_end_arrives(followed, cluster)


@pytest.mark.slow
@pytest.mark.pg("== 17")
def test_a_truncate_and_a_definition_that_the_source_lost(followed: Case, cluster: Cluster) -> None:
    """Neither leaves a row in the destination; the tables are set aside all the same."""
    cluster.let_wait_for("")
    with streaming(followed, cluster, expect=1):
        cluster.hold_back(cluster.standbys[0])
        cluster.database.execute("truncate b", "alter table a add column more int")
        followed.wait_for("select count() from b", 0)
        followed.wait_until(lambda: "table altered" in followed.log(), "the column is there")
        cluster.promote(lost=True)
        followed.wait_until(lambda: followed.log().count("table set aside") == 2, "both are set aside")
    followed.database = cluster.database
    assert followed.penstock("resync", str(followed.file), "public.a", "public.b").returncode == 0
    followed.once()
    followed.assert_equal(*TABLES)


@pytest.mark.slow
@pytest.mark.pg("== 16")
def test_a_slot_that_stands_before_the_pipe(followed: Case, cluster: Cluster) -> None:
    """Rows come again, and change nothing, in a history either; of the lost WAL the pipe had seen nothing that it keeps.

    On 16 a slot can be made on the standby, which has it after its promotion.
    """
    make_tables(cluster.database)
    cluster.database.execute(
        "create table h (id int primary key, v int)", "insert into h select i, 0 from generate_series(1, 50) i"
    )
    cluster.database.execute("create table other (v text)")
    followed.define(
        settings=QUICK,
        tables='exclude = ["public.other"]',
        options='[tables.options."public.h"]\nshape = "history"',
    )
    with followed.running():
        followed.wait_until(lambda: followed.log().count("table streaming") == 3, "all tables stream")
        cluster.make_slot_on_standby()
        cluster.database.execute("update h set v = v + 1", "update a set v = v + 1", "delete from h where id > 40")
        followed.wait_for("select count() from h final where _operation != 'copy'", 60)
        cluster.hold_back(cluster.standbys[0])
        ((end,),) = cluster.database.fetch("select (pg_current_wal_insert_lsn() - '0/0')::text")
        cluster.database.execute("insert into other select repeat('x', 1000) from generate_series(1, 500)")
        confirmed = "select confirmed_flush_lsn - '0/0' > %s::numeric + 400000 from pg_replication_slots where slot_name = 'penstock_shop'"
        until(lambda: cluster.database.fetch(confirmed, end) == [(True,)])
        cluster.promote(lost=True)
        cluster.database.execute("update h set v = v + 1", "insert into h values (1000, 0)")
        followed.wait_for("select count() from h final where _operation != 'copy'", 101)
        assert_the_end_arrives(followed, cluster)
    assert "set aside" not in followed.log()
    assert re.search(r"failover .*lost_bytes=[1-9]", followed.log())
    newest = followed.query(
        "select id, v from (select id, argMax(v, _version) v from h final group by id) where id <= 40 and v != 2"
    )
    assert newest == []


@pytest.mark.slow
@pytest.mark.pg("== 17")
@pytest.mark.parametrize("lost", [False, True])
def test_a_promotion_within_a_copy(followed: Case, cluster: Cluster, *, lost: bool) -> None:
    """The copy goes on; where it may have read what is lost, it starts over in a table of its own."""
    cluster.let_wait_for("")
    with streaming(followed, cluster, rows=60_000, more="copy_workers = 1"):
        if lost:
            cluster.wait_until_followed()
            cluster.hold_back(cluster.standbys[0])
            cluster.database.execute("update a set v = -7 where id % 2 = 0")
        cluster.endpoint.latency_seconds = 0.02
        assert followed.penstock("resync", str(followed.file), "public.a").returncode == 0
        ((oid,),) = cluster.database.fetch("select 'a'::regclass::oid")
        followed.wait_for(f"select count() > 0 from a_fresh_{oid} where _version = 0", 1)
        cluster.endpoint.latency_seconds = 0.0
        cluster.promote(lost=lost)
        followed.wait_until(lambda: followed.log().count('"table streaming" table=public.a') == 2, "a is copied again")
        assert_the_end_arrives(followed, cluster)
    assert ("copy starts over" in followed.log()) == lost


@pytest.mark.slow
@pytest.mark.usefixtures("two_standbys")
@pytest.mark.pg("== 18")
def test_one_promotion_after_another(followed: Case, cluster: Cluster) -> None:
    """The second one while the pipe does not run."""
    with streaming(followed, cluster):
        with load(cluster) as work:
            work.wait_for_commits(100)
            cluster.promote(lost=True)
            work.wait_for_commits(100)
        assert_the_end_arrives(followed, cluster)
        cluster.synchronize()
    with load(cluster) as work:
        work.wait_for_commits(100)
        cluster.wait_until_followed()
    cluster.promote()
    with followed.running():
        assert_the_end_arrives(followed, cluster)
    assert "set aside" not in followed.log()
    assert "2 to 3" in followed.log()


@pytest.mark.slow
@pytest.mark.pg("== 18")
def test_the_source_was_restored_elsewhere(served: Case, postgres_servers: Callable[[int], PostgresServer]) -> None:
    """A dump of the old server, in a new one: another system, other oids."""
    make_tables(served.database)
    served.define(settings=QUICK)
    served.once()
    server = postgres_servers(15)
    with server.connect() as connection:
        connection.execute("create database restored")
    served.database = Database(server, "restored")
    try:
        served.database.execute("create table before_it (id int primary key)")
        make_tables(served.database, 1000)
        served.define(settings=QUICK)
        done = served.once(expect=1)
        assert "another database system now" in done.stderr.replace("\n", " ")
        assert served.penstock("resync", str(served.file), "--all").returncode == 0
        served.once()
        served.assert_equal(*TABLES)
        served.database.execute("delete from a where id < 500", "insert into b values ('new', 1, 1)")
        served.once()
        served.assert_equal(*TABLES)
    finally:
        drop_database(server, "restored")


@pytest.mark.slow
@pytest.mark.pg("== 16")
def test_a_standby_is_the_source(followed: Case, cluster: Cluster) -> None:
    """Copied and streamed from it, a history too, while the primary works; then it is promoted, and the pipe goes on."""
    make_tables(cluster.database, 5000)
    cluster.database.execute(
        "create table h (id int primary key, v int)",
        "insert into h select i, 0 from generate_series(1, 50) i",
        "create publication given for all tables",
    )
    cluster.endpoint.target_port = cluster.standbys[0].port
    followed.define(settings=QUICK, options='[tables.options."public.h"]\nshape = "history"')
    assert "is a standby" in followed.once(expect=1).stderr
    followed.define(source="standby = true", settings=QUICK)
    assert "cannot make a publication" in followed.once(expect=2).stderr
    followed.define(
        source='standby = true\npublication = "given"',
        settings=QUICK,
        options='[tables.options."public.h"]\nshape = "history"',
    )
    with followed.started(followed.command("run", str(followed.file))):
        with load(cluster) as work:

            def stream(tables: int) -> bool:
                cluster.database.execute("select pg_log_standby_snapshot()")  # an idle primary does so every 15 s
                return followed.log().count("table streaming") == tables

            until(lambda: stream(3), 60)
            work.wait_for_commits(200)
            cluster.database.execute(
                "create table late (id int primary key)", "insert into late select generate_series(1, 100)"
            )
            until(lambda: stream(4), 60)
            cluster.database.execute("update h set v = v + 1")
            cluster.wait_until_followed()
            cluster.promote()
            work.wait_for_commits(100)
            cluster.database.execute("update h set v = v + 1")
            followed.wait_for("select count() from h final where _operation = 'update'", 100)
        assert_the_end_arrives(followed, cluster, *TABLES, "public.late")
    assert "set aside" not in followed.log()
