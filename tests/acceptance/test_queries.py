"""``penstock query`` of a running pipe: whatever is asked, it only reads, and the pipe goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from penstock.control import queries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_pipe import Case

pytestmark = pytest.mark.pg("== 15")
SLOW = "select sleepEachRow(0.00001) from numbers(1000000000)"


@pytest.fixture
def running(case: Case) -> Iterator[Case]:
    """A pipe with a table of a thousand rows that streams."""
    case.database.execute(
        "create table t (id int primary key, v text)", "insert into t select i, 'v' from generate_series(1, 1000) i"
    )
    case.define()
    with case.running():
        case.wait_for("select count() from t_current", 1000)
        yield case
    assert "Traceback" not in case.log()


def still_flows(case: Case) -> None:
    """A new row arrives."""
    (top,) = case.database.fetch("insert into t select coalesce(max(id), 0) + 1 from t returning id")[0]
    case.wait_for(f"select count() from t_current where id = {top}", 1)


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    for word in (*words, "error: ", " next: "):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_writing_is_refused(running: Case, tmp_path: Path) -> None:
    file = tmp_path / "written"
    for sql in (
        "insert into t (id) values (5)",
        "drop table t",
        "truncate table t",
        "alter table t delete where 1",
        "create table u (a int) engine = Memory",
        "system stop merges",
        "kill query where 1",
        "set readonly = 0",
        f"insert into function file('{file}') select 1",
        f"select 1 into outfile '{file}'",
        "select 1; drop table t",
        "select 1 settings readonly = 0",
        "(select 1) settings readonly = 0, max_threads = 1",
        f"select ‘'’ into outfile '{file}'",
        f"select 1 into\u200boutfile '{file}'",
    ):
        done = running.penstock("query", str(running.file), sql)
        refused(done, 2)
        assert any(each in done.stderr for each in ("read", "one query", "Redirect", "Syntax error")), done.stderr
    assert not file.exists()
    still_flows(running)


def test_failing_queries(running: Case) -> None:
    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return running.penstock("query", str(running.file), *words)

    refused(ask("select nope from t"), 2, "nope", "Mend the query")
    refused(ask("select * from nope"), 2, "nope")
    refused(ask("selct 1"), 2, "SELCT")
    refused(ask(""), 2, "is empty")
    refused(ask("select throwIf(1)"), 2, "throwIf")
    refused(ask("select 1", "--format", "Nope"), 2, "Unknown format Nope")
    refused(ask("select 1 format CSV"), 2, "--format CSV")
    assert ask("select 1 -- one", "--format", "TSV").stdout == "1\n"
    still_flows(running)


@pytest.mark.slow
def test_large_queries_and_results(embedded: Case, tmp_path: Path) -> None:
    embedded.database.execute("create table t (id int primary key)")
    embedded.define()
    command = embedded.command("query", str(embedded.file))
    environment = {**os.environ, "PENSTOCK_HOME": str(embedded.home)}
    with embedded.running():
        done = embedded.penstock(
            "query", "shop", "select number, toString(number) from numbers(1000000)", "--format", "TSV"
        )
        assert len(done.stdout.splitlines()) == 1_000_000
        rows = "select number, repeat(toString(number), 50) from numbers(100000000)"
        refused(embedded.penstock("query", "shop", rows), 2, "exceeded")
        for lifted in ("max_result_bytes = 0", "max_memory_usage = 0", "result_overflow_mode = 'break'"):
            done = embedded.penstock("query", "shop", f"select * from ({rows} settings {lifted})")
            refused(done, 2, "exceeded")
            refused(embedded.penstock("query", "shop", f"{rows} settings {lifted}"), 2, "Cannot modify", "setting")
        refused(
            embedded.penstock("query", "shop", "select groupArray(number) from numbers(10000000000)"), 2, "exceeded"
        )
        text = tmp_path / "long.sql"
        text.write_text(f"select '{'x' * (2 << 20)}'")
        with text.open() as long:
            done = subprocess.run(
                [*command, "-"], env=environment, stdin=long, capture_output=True, text=True, timeout=30, check=False
            )
        refused(done, 2, "longer than 1 MiB")
        reader = subprocess.Popen(
            [*command, rows[:-3]], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert reader.stdout is not None
        reader.stdout.close()
        _, said = reader.communicate(timeout=60)
        assert b"Traceback" not in said
    assert "Traceback" not in embedded.log()


def test_nonsense_on_the_socket(embedded: Case) -> None:
    embedded.database.execute("create table t (id int primary key)")
    embedded.define()
    with embedded.running():
        path = str(queries.address(embedded.home, "shop"))
        assert Path(path).stat().st_mode & 0o777 == 0o600
        for junk in (b"\n", b"junk\n", b"[]\n", b"\xff\n", b'{"sql": 1}\n', b"x" * (3 << 20)):
            with closing(socket.socket(socket.AF_UNIX)) as connection:
                connection.connect(path)
                try:
                    connection.sendall(junk)
                    assert b"is not one of penstock query" in connection.recv(200)
                except (BrokenPipeError, ConnectionResetError):
                    assert len(junk) > queries.LONGEST_REQUEST
        with closing(socket.socket(socket.AF_UNIX)) as silent:  # it stays to the end
            silent.connect(path)
            still_flows(embedded)
    assert "Traceback" not in embedded.log()


def test_slow_queries_hold_nothing_up(embedded: Case) -> None:
    embedded.database.execute("create table t (id int primary key)")
    embedded.define()
    with ExitStack() as stack:
        with embedded.running() as process:
            asked = [
                subprocess.Popen(
                    embedded.command("query", "shop", SLOW),
                    env={**os.environ, "PENSTOCK_HOME": str(embedded.home)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for _ in range(queries.AT_A_TIME + 2)
            ]
            for each in asked:
                stack.callback(each.wait, 20)
                stack.callback(each.kill)
            moved = (
                "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = 'penstock_shop'"
            )
            embedded.wait_until(lambda: len(_ends(process.pid)) > len(asked), "the queries have arrived")
            embedded.database.execute("insert into t values (1)")
            (goal,) = embedded.database.fetch("select pg_current_wal_insert_lsn()")[0]
            embedded.wait_until(lambda: embedded.database.fetch(moved, goal) == [(True,)], "the row is written", 10)
            began = time.monotonic()
        assert time.monotonic() - began < 8, "the end waited for the queries"
        for each in asked:
            _, said = each.communicate(timeout=10)
            assert each.returncode == 1
            assert "error: " in said
            assert "Traceback" not in said
    assert embedded.query("select count() from t_current") == [["1"]]


def _ends(pid: int) -> list[str]:
    """The process's ends of connections over the pipe's socket, and the one that listens."""
    return [each.laddr for each in psutil.Process(pid).net_connections("unix") if each.laddr]
