"""ClickHouse goes away in the middle: killed, frozen, full. The pipe waits, says so, and goes on; both ends are equal."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import Case, streaming
from tests.load import TABLES, load, make_tables
from tests.servers.clickhouse import ClickHouseServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_postgres import Database

pytestmark = pytest.mark.pg("== 15")


@pytest.fixture
def mortal(database: Database, tmp_path: Path) -> Iterator[Case]:
    """A pipe into a server of its own, that may be killed."""
    with ClickHouseServer() as server:
        yield Case(tmp_path, database, server.dsn(), server)


def serving(case: Case) -> ClickHouseServer:
    assert case.server is not None
    return case.server


@pytest.mark.parametrize("end", ["kill", pytest.param("stop", marks=pytest.mark.slow)])
def test_clickhouse_ends_in_the_middle_of_the_stream(mortal: Case, end: str) -> None:
    make_tables(mortal.database)
    mortal.define(settings='flush_interval = "50ms"')
    with mortal.running(), load(mortal.database) as work:
        mortal.wait_for("select count() > 0 from a where _version > 0", 1)
        for mark in (1, 2):
            before = mortal.log()
            getattr(serving(mortal), end)()
            mortal.wait_until(lambda: "trying again" in mortal.log()[len(before) :], "the pipe says that it waits")  # noqa: B023
            work.wait_for_commits(200)
            serving(mortal).start()
            mortal.database.execute(f"insert into b values ('mark', {-mark}, 0)")
            mortal.wait_for(f"select count() from b_current where k = 'mark' and n = {-mark}", 1)
        work.ending.set()
        mortal.database.execute("insert into a values (1000000, 0, 'last')")
        mortal.wait_for("select count() from a_current where id = 1000000", 1)
    mortal.once()
    mortal.assert_equal(*TABLES)
    assert "Traceback" not in mortal.log()
    assert "127.0.0.1" in mortal.log()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "freeze"])
def test_clickhouse_ends_in_the_middle_of_the_copy(mortal: Case, end: str) -> None:
    make_tables(mortal.database, 30_000)
    mortal.define(settings="copy_part_rows = 2000\nmax_batch_rows = 500")
    with mortal.running(), load(mortal.database):
        mortal.wait_for("select count() > 2000 from a", 1)
        getattr(serving(mortal), end)()
        if end == "freeze":
            time.sleep(2)  # it is the length that is tried, not an event
            serving(mortal).thaw()
        else:
            mortal.wait_until(lambda: "trying again" in mortal.log(), "the pipe says that it waits")
            serving(mortal).start()
        mortal.wait_until(lambda: mortal.log().count("table streaming") == 2, "both tables stream")
    mortal.once()
    mortal.assert_equal(*TABLES)
    assert "Traceback" not in mortal.log()


def test_clickhouse_freezes_while_rows_stream(mortal: Case) -> None:
    make_tables(mortal.database)
    mortal.define(settings='flush_interval = "50ms"')
    with mortal.running(), load(mortal.database) as work:
        mortal.wait_for("select count() > 0 from a where _version > 0", 1)
        serving(mortal).freeze()
        work.wait_for_commits(300)
        serving(mortal).thaw()
        work.ending.set()
        mortal.database.execute("insert into a values (1000000, 0, 'last')")
        mortal.wait_for("select count() from a_current where id = 1000000", 1)
    mortal.assert_equal(*TABLES)


@pytest.mark.slow
def test_the_pipe_is_ended_while_clickhouse_is_frozen(mortal: Case) -> None:
    mortal.database.execute("create table t (id int primary key)")
    mortal.define(settings='flush_interval = "50ms"')
    with mortal.running(expect=1):
        streaming(mortal)
        serving(mortal).freeze()
        mortal.database.execute("insert into t values (1)")
        mortal.wait_until(lambda: "trying again" in mortal.log() or is_behind(mortal), "a row is on its way")
    assert re.search(r"error: .* could not be written within .*\n next: Nothing is lost", mortal.log())
    serving(mortal).thaw()
    mortal.once()
    mortal.assert_equal("public.t")


def is_behind(case: Case) -> bool:
    shown = case.penstock("status", str(case.file), "--json")
    return any(table["lag_bytes"] for table in json.loads(shown.stdout)["tables"])


def small_disk(folder: Path, mebibytes: int) -> list[str]:
    """What stands before a command that is to see a small disk in ``folder``; needs no root."""
    folder.mkdir()
    script = f'mount -t tmpfs -o size={mebibytes}m,mode=777 tmpfs "{folder}" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def test_the_disk_of_the_embedded_clickhouse_is_full(embedded: Case) -> None:
    disk = embedded.folder / "disk"
    embedded.prefix = small_disk(disk, 96)
    embedded.destination = f"chdb://{disk}/chdb"
    embedded.database.execute(
        "create table t (id int primary key, r text)", "insert into t values (0, 'before')", "create extension pgcrypto"
    )
    embedded.define()
    with embedded.running() as process:
        embedded.wait_for("select count() from t_current", 1)
        seen = Path(f"/proc/{process.pid}/root{disk}")
        left = os.statvfs(seen)
        (seen / "ballast").write_bytes(os.urandom(left.f_bavail * left.f_bsize - (8 << 20)))
        embedded.database.execute(
            "insert into t select i, encode(gen_random_bytes(1000), 'hex') from generate_series(1, 20000) i"
        )
        embedded.wait_until(lambda: "the disk is full" in embedded.log(), "the pipe says that the disk is full")
        assert "Free space on ClickHouse's disk" in embedded.log()
        assert embedded.query("select count() from t_current") == [["1"]]
        (seen / "ballast").unlink()
        embedded.wait_for("select count() from t_current", 20001)
        embedded.assert_equal("public.t")
