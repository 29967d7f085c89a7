"""PostgreSQL goes away in the middle: cut, silent, restarted, or saying nonsense. The pipe goes on exactly where it was."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest
from psycopg import conninfo
from tests.fix_postgres import drop_database
from tests.load import TABLES, load, make_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fix_pipe import Case
    from tests.fix_proxy import Proxy

pytestmark = pytest.mark.pg("== 15")
QUICK = 'flush_interval = "50ms"\ncopy_part_rows = 2000\nmax_batch_rows = 500'


@pytest.fixture
def proxied(embedded: Case, proxy_to: Callable[[int], Proxy]) -> tuple[Case, Proxy]:
    """A pipe whose source is behind a proxy."""
    proxy = proxy_to(embedded.database.server.port)
    embedded.source_dsn = conninfo.make_conninfo(embedded.database.dsn, port=proxy.port, connect_timeout=3)
    return embedded, proxy


def assert_the_end_arrives(case: Case) -> None:
    """What is committed last arrives, and then both ends are equal."""
    case.database.execute("insert into a values (1000000, 0, 'last')")
    case.wait_for("select count() from a_current where id = 1000000", 1)
    case.wait_until_equal(*TABLES)
    assert "Traceback" not in case.log()


@pytest.mark.slow
def test_the_connection_is_cut_again_and_again(proxied: tuple[Case, Proxy]) -> None:
    case, proxy = proxied
    make_tables(case.database, 10_000)
    case.define(settings=QUICK)
    with case.running():
        with load(case.database) as work:
            for number in range(8):
                proxy.cut_after_bytes = 300_000 + 77_777 * number  # in the copy, then in the stream
                work.wait_for_commits(60)
            proxy.cut()
            proxy.latency_seconds = 0.02
            work.wait_for_commits(60)
            proxy.latency_seconds = 0.0
        assert_the_end_arrives(case)
    assert "trying again" in case.log()
    case.once()
    case.assert_equal(*TABLES)


def test_the_connection_says_nothing_for_a_while_and_is_then_refused(proxied: tuple[Case, Proxy]) -> None:
    case, proxy = proxied
    make_tables(case.database)
    case.define(settings=QUICK)
    with case.running():
        with load(case.database) as work:
            case.wait_for("select count() > 0 from a where _version > 0", 1)
            proxy.blackhole()
            work.wait_for_commits(300)
            proxy.recover()
            work.wait_for_commits(50)
            proxy.refuse = True
            proxy.cut()
            case.wait_until(lambda: "trying again" in case.log(), "the pipe says that it is cut off")
            work.wait_for_commits(50)
            proxy.refuse = False
        assert_the_end_arrives(case)


@pytest.mark.slow
def test_a_link_that_swallows_everything_is_noticed_within_15_seconds(proxied: tuple[Case, Proxy]) -> None:
    """Neither end's system sees it: the proxy takes what is sent."""
    case, proxy = proxied
    make_tables(case.database)
    case.define(settings=QUICK)
    with case.running():
        case.wait_until(lambda: case.log().count("table streaming") == 2, "both tables stream")
        proxy.blackhole()
        case.wait_until(lambda: "the server has not answered for" in case.log(), "the pipe notices", 15)
        proxy.recover()
        assert_the_end_arrives(case)


def test_the_server_does_not_notice_that_the_connection_is_gone(proxied: tuple[Case, Proxy]) -> None:
    """Its sender would hold the slot for a minute (``wal_sender_timeout``): the pipe ends its own former session."""
    case, proxy = proxied
    make_tables(case.database)
    case.define(settings=QUICK)
    with case.running():
        case.wait_until(lambda: case.log().count("table streaming") == 2, "both tables stream")
        for number in range(1, 4):
            (pid,) = case.database.fetch("select active_pid from pg_replication_slots")[0]
            proxy.strand()
            case.database.execute(f"insert into b values ('behind the cut', {number}, 0)")
            case.wait_for("select count() from b_current where k = 'behind the cut'", number, 25)
            assert re.search(rf"former session ended.* pid={pid}\b", case.log())
        assert_the_end_arrives(case)
    assert case.log().count("former session ended") == 3


def test_a_history_is_copied_over_a_connection_that_is_cut(proxied: tuple[Case, Proxy]) -> None:
    case, proxy = proxied
    case.database.execute(
        "create table h (id int primary key, v text)",
        "insert into h select i, repeat('v' || i, 20) from generate_series(1, 20000) i",
    )
    case.define(settings=QUICK, options='[tables.options."public.h"]\nshape = "history"')
    with case.running():
        proxy.cut_after_bytes = 600_000
        case.wait_for("select count() from h final", 20000)
        case.wait_until(lambda: "table streaming" in case.log(), "the table streams")
        case.database.execute("update h set v = 'x' where id <= 10")
        case.wait_for("select count() from h final", 20010)
    assert "trying again" in case.log()
    assert case.query("select count(), uniqExact(id) from h final where _operation = 'copy'") == [["20000", "20000"]]


@pytest.mark.pg(">= 12")
@pytest.mark.parametrize("end", ["kill", pytest.param("restart", marks=pytest.mark.slow)])
def test_postgres_restarts_while_rows_stream(embedded: Case, end: str) -> None:
    server = embedded.database.server
    make_tables(embedded.database, 10_000)
    embedded.define(settings=QUICK)
    with embedded.running():
        with load(embedded.database) as work:
            for _ in range(2):
                work.wait_for_commits(100)
                if end == "kill":
                    server.kill()
                    server.start()
                else:
                    server.restart()
            work.wait_for_commits(100)
        assert_the_end_arrives(embedded)
    embedded.once()
    embedded.assert_equal(*TABLES)


# An idle pipe pins no WAL


@pytest.fixture
def neighbour(embedded: Case) -> Iterator[Callable[..., None]]:
    """Runs statements in another database of the same server."""
    server = embedded.database.server
    name = f"neighbour_of_{embedded.database.name}"
    with server.connect() as connection:
        connection.execute(f'create database "{name}"')

    def run(*statements: str) -> None:
        with server.connect(name) as connection:
            for each in statements:
                connection.execute(each)

    yield run
    drop_database(server, name)


@pytest.mark.pg(">= 12")
@pytest.mark.parametrize("busy", ["another database", pytest.param("other tables", marks=pytest.mark.slow)])
def test_an_idle_pipe_lets_the_wal_go(embedded: Case, neighbour: Callable[..., None], busy: str) -> None:
    embedded.database.execute("create table t (id int primary key)", "create table other (v text)")
    embedded.define(tables='include = ["public.t"]')
    run = {"another database": neighbour, "other tables": embedded.database.execute}.get(busy, lambda *_: None)
    with embedded.running():
        embedded.wait_until(lambda: "table streaming" in embedded.log(), "the table streams")
        run("create table if not exists other (v text)", "alter table other set (autovacuum_enabled = off)")
        run("insert into other select repeat('x', 1000) from generate_series(1, 20000)", "delete from other")
        (goal,) = embedded.database.fetch("select pg_current_wal_insert_lsn()")[0]
        confirmed = (
            "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = 'penstock_shop'"
        )
        embedded.wait_until(
            lambda: embedded.database.fetch(confirmed, goal) == [(True,)], f"the slot is confirmed up to {goal}", 20
        )

        def written() -> int:
            """While nothing happens; but the server may do something by itself, in any database."""
            began = embedded.database.fetch("select pg_current_wal_insert_lsn()")[0][0]
            threading.Event().wait(6)
            return int(embedded.database.fetch("select pg_current_wal_insert_lsn() - %s::pg_lsn", began)[0][0])

        assert any(written() < 20_000 for _ in range(4)), "an idle pipe writes WAL of its own"


# Nonsense on the wire


def _changed_once(
    old: re.Pattern[bytes], new: Callable[[re.Match[bytes]], bytes], times: int = 1
) -> Callable[[bytes], bytes]:
    left = [times]

    def change(piece: bytes) -> bytes:
        found = old.search(piece) if left[0] else None
        if not found:
            return piece
        left[0] -= 1
        return piece[: found.start()] + new(found) + piece[found.end() :]

    return change


INSERT = re.compile(rb"(?s)(d....w.{24})I(....N)(..)")  # CopyData, XLogData, Insert, relation, number of columns
NONSENSE = {
    "an unknown message": lambda found: found[1] + b"X" + found[2] + found[3],
    "too many columns": lambda found: found[1] + b"I" + found[2] + b"\0\x63",
    "an unknown tuple": lambda found: found[1] + b"I" + found[2][:-1] + b"Q" + found[3],
    "a wrong length": lambda found: b"d\0\0\0\6" + found[0][5:],
}


@pytest.mark.parametrize(
    "kind", [each if each == "a wrong length" else pytest.param(each, marks=pytest.mark.slow) for each in NONSENSE]
)
def test_a_frame_that_is_not_what_the_protocol_says_is_read_again(proxied: tuple[Case, Proxy], kind: str) -> None:
    case, proxy = proxied
    make_tables(case.database)
    case.define(settings=QUICK)
    with case.running():
        case.wait_until(lambda: case.log().count("table streaming") == 2, "both tables stream")
        case.database.execute("insert into b select 'before', i, 0 from generate_series(1, 100) i")
        proxy.change = _changed_once(INSERT, NONSENSE[kind])
        case.database.execute("insert into b select 'broken', i, 0 from generate_series(1, 1000) i")
        case.wait_for("select count() from b_current where k = 'broken'", 1000)
        assert_the_end_arrives(case)
    assert case.log().count("trying again") == 1
    assert case.log().count("stream open") == 2


@pytest.mark.slow
def test_a_frame_that_stays_unreadable_ends_the_pipe(proxied: tuple[Case, Proxy]) -> None:
    case, proxy = proxied
    make_tables(case.database)
    case.define(settings=QUICK)
    case.once()
    proxy.change = _changed_once(INSERT, NONSENSE["an unknown message"], times=1000)
    case.database.execute("insert into b values ('broken', 1, 0)")
    done = case.penstock("run", str(case.file))
    assert done.returncode == 1
    assert re.search(
        r"error: the stream after \w+/\w+ cannot be read: .*unknown.* next: ", done.stderr.replace("\n", " ")
    )
    proxy.change = lambda piece: piece
    case.once()
    case.assert_equal(*TABLES)


def test_a_source_whose_functions_do_not_say_who_it_is(served: Case, role: Callable[..., str]) -> None:
    """No outage for the pipe: as Aurora may, the server refuses to call them, and the replication protocol says the same."""
    name = role("replication")
    served.database.execute(
        f"grant create on database {served.database.name} to {name}",
        "create table t (id int primary key, v int)",
        "insert into t select g, g from generate_series(1, 1000) g",
        f"alter table t owner to {name}",
        "revoke execute on function pg_control_system() from public",
        "revoke execute on function pg_walfile_name(pg_lsn) from public",
    )
    served.source_dsn = conninfo.make_conninfo(served.database.dsn, user=name)
    served.define(settings="copy_part_rows = 100")
    served.once()
    served.database.execute("update t set v = 0 where id <= 500")
    served.once()
    served.assert_equal("public.t")
