"""SSH tunnels in use: cut, silent, shared and idle; what libpq and ClickHouse's driver make of them; and that nobody else gets in."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.fix_postgres import until
from tests.fix_tls import SECRET
from tests.servers.postgres import PostgresServer, free_port
from tests.ways import asserted, refused, through, to

from penstock import ssh as ssh_module
from penstock import tunnel
from penstock.clickhouse.client import Client
from penstock.config import Destination
from penstock.errors import (
    ConfigError,
    DestinationRefusedError,
    DestinationUnavailableError,
    SourceRefusedError,
    SourceUnavailableError,
)
from penstock.postgres import wire
from penstock.postgres.connection import sibling, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_proxy import Proxy
    from tests.fix_ssh import JumpServer
    from tests.fix_tls import Tls
    from tests.servers.clickhouse import ClickHouseServer

pytestmark = [pytest.mark.pg("== 15"), pytest.mark.usefixtures("own_home")]


# While it is open


def test_a_tunnel_that_is_cut_opens_again(jump: JumpServer, ssh_key: Path, postgres: PostgresServer) -> None:
    connector = through(to(jump, ssh_key), postgres)
    for number in range(1, 4):
        with contextlib.closing(connector.connect()) as connection:
            jump.cut()
            with pytest.raises(SourceUnavailableError), translated("asking"):
                connection.execute("select 1")
        assert jump.logins == number
    asserted(connector)


def test_a_silent_tunnel_is_noticed(
    jump: JumpServer, jump_proxy: Proxy, ssh_key: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_module, "KEEPALIVE_SECONDS", 0.2)
    connector = through(to(jump, ssh_key, port=jump_proxy.port), postgres)
    with contextlib.closing(connector.connect()) as connection:
        jump_proxy.blackhole()
        began = time.monotonic()
        with pytest.raises(SourceUnavailableError), translated("asking"):
            connection.execute("select 1")
        assert time.monotonic() - began < 5
    jump_proxy.recover()
    asserted(connector)


def test_many_at_once_share_one_login(jump: JumpServer, ssh_key: Path, postgres: PostgresServer) -> None:
    connector = through(to(jump, ssh_key), postgres)
    barrier = threading.Barrier(8)

    def work(number: int) -> int:
        barrier.wait()
        with contextlib.closing(connector.connect()) as connection:
            return sum(
                len(row[0]) for row in connection.execute("select repeat('x', 1000) from generate_series(1, 3000)")
            )

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [3_000_000] * 8
    assert jump.logins == 1


def test_cancelling_and_a_second_connection(jump: JumpServer, ssh_key: Path, postgres: PostgresServer) -> None:
    with contextlib.closing(through(to(jump, ssh_key), postgres).connect()) as connection:
        with contextlib.closing(sibling(connection)) as other:
            assert other.execute("select current_setting('port')").fetchone() == (str(postgres.port),)
        connection.pgconn.send_query(b"select pg_sleep(60)")
        connection.cancel_safe(timeout=5)
        result = wire.next_result(connection.pgconn)
        assert result is not None
        assert b"canceling statement" in (result.error_message or b"")


def test_an_idle_tunnel_is_closed(
    jump: JumpServer, ssh_key: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "IDLE_SECONDS", 0.1)
    connector = through(to(jump, ssh_key), postgres)
    with contextlib.closing(connector.connect()) as connection:
        connection.execute("select pg_sleep(0.3)")
    until(lambda: not jump._connections)
    asserted(connector)


def test_nobody_else_gets_in(
    jump: JumpServer, ssh_key: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = to(jump, ssh_key)
    port = tunnel.through(ssh).port_to("127.0.0.1", postgres.port)
    psycopg.connect(postgres.dsn(port=port)).close()
    monkeypatch.setattr(tunnel.os, "getuid", lambda: 4_000_000)  # as if the connection were another user's
    with pytest.raises(psycopg.OperationalError, match="closed"):
        psycopg.connect(postgres.dsn(port=port))
    assert len(jump.targets) == 1


# What libpq makes of it


def test_verify_full_holds_through_the_tunnel(jump: JumpServer, ssh_key: Path, tls: Tls) -> None:
    given = {"user": "tls", "password": SECRET, "sslmode": "verify-full", "sslrootcert": tls.root}
    connector = through(to(jump, ssh_key), tls.server, host="localhost", channel_binding="require", **given)
    with contextlib.closing(connector.connect()) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.info.host == "localhost"
    jump.names["db.example.com"] = "127.0.0.1"
    other = through(to(jump, ssh_key), tls.server, host="db.example.com", **given)
    refused(other, SourceRefusedError, 'does not match host name "db.example.com"', "hostaddr")
    named = through(to(jump, ssh_key), tls.server, host="localhost", hostaddr="10.9.8.7", **given)
    jump.names["10.9.8.7"] = "127.0.0.1"
    named.connect().close()
    assert jump.targets[-1] == ("10.9.8.7", tls.server.port)


def test_several_hosts_each_through_the_tunnel(jump: JumpServer, ssh_key: Path, postgres: PostgresServer) -> None:
    jump.names["a.internal"] = jump.names["b.internal"] = "127.0.0.1"
    dead = free_port()
    hosts = {"host": "a.internal,b.internal", "port": f"{dead},{postgres.port}"}
    asserted(through(to(jump, ssh_key), postgres, target_session_attrs="read-write", **hosts))
    assert set(jump.targets) == {("a.internal", dead), ("b.internal", postgres.port)}
    both = {"host": "a.internal,b.internal", "port": dead}
    refused(through(to(jump, ssh_key), postgres, **both), SourceUnavailableError, f"cannot reach b.internal:{dead}", "")


def test_two_private_networks_at_once(
    jump_server: Callable[..., JumpServer], ssh_key: Path, postgres: PostgresServer
) -> None:
    one, other = jump_server(), jump_server()
    for jump in (one, other):
        jump.names["10.0.0.5"] = "127.0.0.1"
        asserted(through(to(jump, ssh_key), postgres, host="10.0.0.5"))
    assert (one.logins, other.logins) == (1, 1)


# To ClickHouse


def test_the_destination_has_a_tunnel_too(
    jump: JumpServer, ssh_key: Path, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    jump.names["ch.internal"] = "127.0.0.1"
    ssh, dsn = to(jump, ssh_key), clickhouse_server.dsn().replace("127.0.0.1", "ch.internal")
    with contextlib.closing(Client.open(Destination(dsn=dsn, ssh=ssh), scratch=tmp_path)) as client:
        assert client.rows("select 1") == [(1,)]
        jump.cut()
        with contextlib.suppress(DestinationUnavailableError):
            client.rows("select 1")
        assert client.rows("select 2") == [(2,)]
    assert {host for host, _ in jump.targets} == {"ch.internal"}
    assert jump.logins == 2
    for changed, kind, message in (
        ({"known_host_key": ssh_key.with_suffix(".pub").read_text()}, DestinationRefusedError, "another host key"),
        ({"port": free_port()}, DestinationUnavailableError, "refuses the connection"),
    ):
        given = Destination(dsn=dsn, ssh=ssh.model_copy(update=changed))
        with contextlib.closing(Client.open(given, scratch=tmp_path)) as client:
            with pytest.raises(kind) as caught:
                client.rows("select 1")
            assert message in caught.value.message
            assert caught.value.hint
    dead = Destination(dsn=f"clickhouse://ch.internal:{free_port()}", ssh=ssh)
    with (
        contextlib.closing(Client.open(dead, scratch=tmp_path)) as client,
        pytest.raises(DestinationUnavailableError, match=r"cannot reach ch\.internal"),
    ):
        client.rows("select 1")
    with pytest.raises(ConfigError, match="embedded"):
        Client.open(Destination(dsn=f"chdb://{tmp_path}/chdb", ssh=ssh), scratch=tmp_path)
