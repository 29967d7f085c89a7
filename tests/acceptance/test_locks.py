"""Tables that somebody keeps locked, as CREATE INDEX and VACUUM do, while they are to be published."""

from __future__ import annotations

import re
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.acceptance.test_waits import flows, with_slow
from tests.fix_pipe import QUICK, streaming

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from psycopg import Connection
    from tests.fix_pipe import Case

pytestmark = pytest.mark.pg("== 15")

LOCK = "lock table locked in exclusive mode"  # against ALTER PUBLICATION, and not against reading


@contextmanager
def locked_table(case: Case, lock: str = LOCK) -> Iterator[Connection[Any]]:
    """Somebody has the table ``locked`` for himself until the end of the context."""
    with case.database.connect(application_name="slowpoke") as other:
        other.execute("begin")
        other.execute(lock)
        yield other
        if other.info.transaction_status:
            other.execute("commit")


def is_told(case: Case, other: Connection[Any]) -> None:
    """In the log and in the status alike."""
    said = rf"waits for the lock of public\.locked: PID {other.info.backend_pid} \(.*slowpoke, idle in transaction, its query began"
    case.wait_until(lambda: re.search(said, case.log()) is not None, "it is said", seconds=20)
    case.wait_until(lambda: re.search(said, case.status()["note"]) is not None, "the status says it", seconds=20)


def ends_soon(case: Case, process: subprocess.Popen[str]) -> None:
    """SIGTERM ends it, and nothing of it is left at the server."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(8) == 0, case.log()[-3000:]
    assert "error" not in case.log()
    waiting = "select count(*) from pg_locks l join pg_stat_activity a using (pid) where not l.granted and a.datname = current_database()"
    assert case.database.fetch(waiting) == [(0,)]


def test_the_first_start_while_a_table_is_locked(served: Case) -> None:
    served.database.execute(
        "create table locked (id int primary key)",
        "insert into locked values (1)",
        "create table other (id int primary key)",
        "insert into other values (0)",
    )
    served.define(settings=f'{QUICK}\non_new_table = "report"')
    with locked_table(served) as other:
        with served.running() as process:
            is_told(served, other)
            flows(served)
            ends_soon(served, process)
        with served.running():
            is_told(served, other)
            served.database.execute("insert into other values (2)")
            served.wait_for("select count() from other_current", 3, seconds=20)
            other.execute("insert into locked values (2)")
            other.execute("commit")
            streaming(served, 2)
            served.wait_until(lambda: not served.status()["note"], "nothing is waited for")
            served.database.execute("insert into locked values (3)")
            served.wait_for("select count() from locked_current", 3)
            served.assert_equal("public.locked", "public.other")


def test_new_tables_of_which_one_is_locked(served: Case) -> None:
    with_slow(served)
    with served.running(), served.database.connect(application_name="slowpoke") as other:
        other.execute("begin")
        other.execute(
            "create table new (id int primary key); insert into new values (1); create table locked (id int primary key)"
        )
        other.execute("commit and chain; " + LOCK)
        is_told(served, other)
        flows(served)
        served.wait_for("select count() from new_current", 1)
        other.execute("insert into locked values (1)")
        other.execute("commit")
        served.wait_for("select count() from locked_current", 1)
        served.database.execute("insert into locked values (2)", "insert into new values (2)")
        served.wait_for("select count() from locked_current", 2)
        served.assert_equal("public.locked", "public.new", "public.other")


@pytest.mark.pg("== 18")
def test_a_table_that_nobody_else_may_even_read(served: Case) -> None:
    """As VACUUM FULL and ALTER TABLE lock it, for hours maybe: others are followed, also from a start on, and through their changes."""
    with_slow(served)
    lock = "lock table slow in access exclusive mode"
    with locked_table(served, lock), served.running():
        flows(served)
        served.database.execute("alter table other add v int", "insert into other values (2, 7)")
        served.wait_for("select v from other_current where id = 2", 7, seconds=30)
    with served.running(), locked_table(served, lock):
        served.database.execute("alter table other rename v to w", "insert into other values (3, 8)")
        served.wait_for("select w from other_current where id = 3", 8, seconds=30)
    served.once()
    served.assert_equal("public.slow", "public.other")


def test_a_start_while_the_publication_is_altered(served: Case) -> None:
    with_slow(served)
    served.define('exclude = ["public.slow"]', QUICK)
    with served.database.connect(application_name="slowpoke") as other:
        other.execute("begin; alter publication penstock_shop drop table other")
        said = rf"waits for the lock of .*: PID {other.info.backend_pid} "
        with served.started(served.command("run", str(served.file))) as process:
            served.wait_until(lambda: re.search(said, served.log()) is not None, "it is said")
            ends_soon(served, process)
        with served.started(served.command("run", str(served.file))):
            served.wait_until(lambda: len(re.findall(said, served.log())) == 2, "it is said again")
            other.execute("rollback")
            flows(served)


@pytest.mark.slow
def test_others_get_their_turn_at_a_table_that_is_waited_for(served: Case) -> None:
    """Whoever asks for a lock behind the pipe, and does not mind the one that is there, is not held up by the pipe."""
    with_slow(served)
    with served.running(), served.database.connect(application_name="slowpoke") as other:
        other.execute("begin; create table locked (id int primary key)")
        other.execute("commit and chain; lock table locked in share mode")
        is_told(served, other)
        with served.database.connect() as third:
            third.execute("set lock_timeout = '20s'")
            third.execute("begin; lock table locked in share mode; commit")
        other.execute("commit")
        served.wait_for("select count() from locked_current", 0)


@pytest.mark.slow
def test_the_publication_is_altered_when_its_pipe_is_dropped(served: Case) -> None:
    with_slow(served)
    with served.database.connect(application_name="slowpoke") as other:
        other.execute("begin; alter publication penstock_shop set (publish = 'insert')")
        done = served.penstock("drop", str(served.file), timeout=30)
        assert done.returncode == 1
        said = f'dropping publication "penstock_shop" waits for the lock of .*: PID {other.info.backend_pid} '
        assert re.search(said, done.stderr), done.stderr
        other.execute("rollback")
    assert served.penstock("drop", str(served.file)).returncode == 0
    assert served.database.fetch("select pubname from pg_publication") == []


@pytest.mark.slow
def test_a_table_that_is_left_out_while_it_is_locked(served: Case) -> None:
    """It gets out of the publication at the next start; the others do at once."""
    names = "select tablename::text from pg_publication_tables order by 1"
    with_slow(served, "create table locked (id int primary key)", "create table third (id int primary key)")
    served.define('exclude = ["public.locked", "public.third"]', QUICK)
    with locked_table(served) as other, served.running():
        assert f"waits for the lock of public.locked: PID {other.info.backend_pid} " in served.log()
        assert re.search("tables stay published.*public.locked", served.log())
        assert served.database.fetch(names) == [("locked",), ("other",), ("slow",)]
        flows(served)
    served.once()
    assert served.database.fetch(names) == [("other",), ("slow",)]
