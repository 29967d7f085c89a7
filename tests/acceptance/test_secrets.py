"""A pipe over TLS, and its password: nobody sees it in a process list, in the log, in the state, or in an error."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from tests.fix_pipe import Case
from tests.fix_postgres import Database
from tests.fix_tls import SECRET, Tls

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.pg("== 15")
WRITTEN = (SECRET.encode(), quote(SECRET, safe="").encode())


@pytest.fixture
def secured(tls: Tls, tmp_path: Path) -> Iterator[Case]:
    """A pipe whose source takes TLS connections with a password only, and whose DSN verifies it."""
    database = Database(tls.server, "postgres")
    database.execute("create table t (id int primary key, v text)", "insert into t values (1, 'copied')")
    case = Case(tmp_path, database, f"chdb://{tmp_path}/chdb")
    case.source_dsn = (
        f"postgresql://tls@localhost:{tls.server.port}/postgres?sslmode=verify-full&sslrootcert={tls.root}"
        "&hostaddr=127.0.0.1&channel_binding=require"
    )
    yield case
    database.execute(
        f"alter role tls password '{SECRET}'",
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots",
        "drop publication if exists penstock_shop",
        "drop table t",
    )


def source_words(how: str, case: Case) -> str:
    """The pipe is given the password; what stands in [source]."""
    if how == "env":
        case.environment["SHOP_PASSWORD"] = SECRET
        return 'password = { env = "SHOP_PASSWORD" }'
    if how == "file":
        (case.folder / "password").write_text(f"{SECRET}\n")
        return f"password = {{ file = {json.dumps(str(case.folder / 'password'))} }}"
    case.source_dsn = case.source_dsn.replace("tls@", f"tls:{quote(SECRET, safe='')}@")
    return ""


def leaks(case: Case) -> list[str]:
    """Where the password stands though it should not: files of the pipe, and command lines of any process."""
    files = [each for folder in (case.home, case.folder / "chdb") for each in folder.rglob("*") if each.is_file()]
    files += [case.folder / "run.log", *Path("/proc").glob("[0-9]*/cmdline")]
    found = []
    for path in files:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if any(each in path.read_bytes() for each in WRITTEN):
                found.append(str(path))
    return found


@pytest.mark.parametrize("how", ["env", "file", "dsn"])
def test_the_password_stays_secret(secured: Case, how: str) -> None:
    case = secured
    case.define(source=source_words(how, case), settings='flush_interval = "50ms"')
    logs = ("--log-format", "json") if how == "env" else ()
    with case.started(case.command("--log-level", "debug", *logs, "run", str(case.file))) as process:
        case.wait_until(lambda: "stream open" in case.log(), "the stream is open")
        case.wait_for("select count() from t_current", 1)
        case.database.execute("insert into t values (2, 'streamed')")
        case.wait_for("select count() from t_current", 2)
        assert case.database.fetch(
            "select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'tls'"
        ) == [(True,)]
        assert leaks(case) == []
        case.database.execute(
            "alter role tls password 'another'",
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tls'",
        )
        assert process.wait(30) == 1
    assert re.search(
        r"error: .*password authentication failed.*\n next: Check the user's name and password", case.log()
    )
    assert leaks(case) == []


@pytest.mark.parametrize("how", [pytest.param("env", marks=pytest.mark.slow), "dsn"])
def test_errors_hold_no_password(secured: Case, how: str) -> None:
    case = secured
    words = source_words(how, case)
    good = case.source_dsn
    for dsn, code in (
        (good.replace("localhost", "db.example.com"), 1),
        (good.replace("verify-full", "bogus"), 2),
        (good.replace("sslrootcert=", "sslrootcert=/nonexistent"), 2),
        (good.replace("/postgres?", "/nowhere?"), 1),
        (good.replace("&channel_binding=", "&channel_bindung="), 2),
        (good.replace("tls", "nobody", 1), 1),
    ):
        case.source_dsn = dsn
        case.define(source=words)
        for command, expected in (("run", (code,)), ("check", (1, 2, 3))):
            done = case.penstock(command, str(case.file), "--json")
            said = (done.stdout + done.stderr).encode()
            assert done.returncode in expected, said
            assert not any(each in said for each in WRITTEN), said
            assert b"Traceback" not in said
    case.source_dsn = good
    case.define(source=words)
    assert leaks(case) == []


def test_a_pipe_with_a_client_certificate(secured: Case, tls: Tls) -> None:
    case = secured
    mine = "&".join(f"{name}={value}" for name, value in tls.mine("certified").items() if name != "sslmode")
    case.source_dsn = case.source_dsn.replace("tls@", "certified@").replace("&channel_binding=require", f"&{mine}")
    case.define(settings='flush_interval = "50ms"')
    with case.started(case.command("run", str(case.file))) as process:
        case.wait_until(lambda: "stream open" in case.log(), "the stream is open")
        case.wait_for("select count() from t_current", 1)
        case.database.execute("insert into t values (2, 'streamed')")
        case.wait_for("select count() from t_current", 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(12) == 0, case.log()
