"""A pipe whose database only a jump server can reach, and a tunnel that breaks while rows flow."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from psycopg import conninfo
from tests.fix_ssh import PASSWORD, USER
from tests.load import TABLES, load, make_tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_pipe import Case
    from tests.fix_proxy import Proxy
    from tests.fix_ssh import JumpServer

pytestmark = pytest.mark.pg("== 15")
QUICK = 'flush_interval = "50ms"\ncopy_part_rows = 2000\nmax_batch_rows = 500'


@pytest.fixture
def tunnelled(served: Case, jump: JumpServer, ssh_key: Path, jump_proxy: Proxy) -> tuple[Case, Proxy]:
    """A pipe through a tunnel, and a proxy in front of the jump server."""
    jump.names["db.internal"] = "127.0.0.1"
    served.source_dsn = conninfo.make_conninfo(served.database.dsn, host="db.internal")
    served.environment["KEY_PASSPHRASE"] = PASSWORD
    served.define(
        settings=QUICK,
        source=f"""
        [source.ssh]
        host = "127.0.0.1"
        port = {jump_proxy.port}
        user = "{USER}"
        key = {json.dumps(str(ssh_key.with_name("encrypted")))}
        passphrase = {{ env = "KEY_PASSPHRASE" }}
        known_host_key = "{jump.line}"
    """,
    )
    return served, jump_proxy


def test_a_tunnel_that_is_cut_loses_nothing(tunnelled: tuple[Case, Proxy], jump: JumpServer) -> None:
    case, proxy = tunnelled
    make_tables(case.database, 10_000)
    proxy.cut_after_bytes = 200_000  # in the copy
    with case.running():
        with load(case.database) as work:
            for _ in range(2):
                work.wait_for_commits(60)
                jump.cut()
        case.wait_until(lambda: case.log().count("table streaming") == 2, "both tables stream")
        began = time.monotonic()
        proxy.cut()
        case.database.execute("insert into a values (1000000, 0, 'last')")
        case.wait_for("select count() from a_current where id = 1000000", 1, 15)
        assert time.monotonic() - began < 15
        case.wait_until_equal(*TABLES)
    log = case.log()
    assert "trying again" in log
    assert log.count("tunnel open") >= 3
    assert "Traceback" not in log
    assert PASSWORD not in log


@pytest.mark.slow
def test_every_command_goes_through_the_tunnel(tunnelled: tuple[Case, Proxy], jump: JumpServer) -> None:
    case, _ = tunnelled
    make_tables(case.database)
    checked = case.penstock("check", str(case.file))
    assert (checked.returncode, jump.logins) == (0, 1), checked.stdout + checked.stderr
    case.once()
    case.assert_equal(*TABLES)
    assert case.penstock("resync", str(case.file), "public.a").returncode == 0
    case.once()
    case.assert_equal(*TABLES)
    dropped = case.penstock("drop", str(case.file), "--tables")
    assert dropped.returncode == 0, dropped.stderr
    assert case.database.fetch("select from pg_replication_slots where slot_name = 'penstock_shop'") == []
    assert {host for host, _ in jump.targets} == {"db.internal"}


def test_a_jump_server_that_is_not_trusted_is_a_finding(
    tunnelled: tuple[Case, Proxy], jump_server: Callable[..., JumpServer], jump: JumpServer
) -> None:
    case, _ = tunnelled
    case.file.write_text(case.file.read_text().replace(jump.line, jump_server().line))
    done = case.penstock("check", str(case.file), "--json")
    assert done.returncode == 3
    (found,) = [each for each in json.loads(done.stdout) if each["check"] == "source_reachable"]
    assert "shows another host key than ssh.known_host_key has" in found["problem"]
    assert "Somebody may be in between" in found["fix"]["advice"]
    assert jump.logins == 0


@pytest.mark.slow
def test_a_tunnel_that_says_nothing_is_opened_again(tunnelled: tuple[Case, Proxy]) -> None:
    case, proxy = tunnelled
    make_tables(case.database)
    with case.running():
        case.wait_until(lambda: case.log().count("table streaming") == 2, "both tables stream")
        proxy.blackhole()
        began = time.monotonic()
        case.wait_until(lambda: "trying again" in case.log(), "the pipe says that it is cut off", 20)
        assert time.monotonic() - began < 16
        case.database.execute("insert into a values (1000000, 0, 'last')")
        proxy.recover()
        case.wait_for("select count() from a_current where id = 1000000", 1, 15)
        case.assert_equal(*TABLES)
