"""SSH tunnels: every way to log in, what each refusal says, and that nobody else gets in."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import asyncssh
import psycopg
import pytest
from tests.fix_postgres import until
from tests.fix_ssh import PASSWORD, USER
from tests.fix_tls import SECRET
from tests.servers.openssh import Sshd
from tests.servers.postgres import PostgresServer, free_port

from penstock import ssh as ssh_module
from penstock import tunnel
from penstock.clickhouse.client import Client
from penstock.config import Destination, Secret, Source, Ssh
from penstock.errors import (
    ConfigError,
    DestinationRefusedError,
    DestinationUnavailableError,
    PenstockError,
    SourceRefusedError,
    SourceUnavailableError,
)
from penstock.postgres import wire
from penstock.postgres.connection import Connector, sibling, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_proxy import Proxy
    from tests.fix_ssh import JumpServer
    from tests.fix_tls import Tls
    from tests.servers.clickhouse import ClickHouseServer

pytestmark = pytest.mark.pg("== 15")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither keys, known hosts nor agent of whoever runs the tests; and each test has tunnels of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(ssh_module, "KNOWN_HOSTS", ("~/.ssh/known_hosts",))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def to(jump: JumpServer, key: Path | None = None, **changed: Any) -> Ssh:
    """The definition of a tunnel through the jump server."""
    given = {"host": "127.0.0.1", "port": jump.port, "user": USER, "known_host_key": jump.line, **changed}
    return Ssh(**({"key": str(key)} if key else {}), **given)


def through(ssh: Ssh, postgres: PostgresServer, **dsn: Any) -> Connector:
    return Connector(Source(dsn=postgres.dsn(**dsn), ssh=ssh), "penstock test")


def asserted(connector: Connector) -> None:
    """Every kind of connection gets through."""
    for connect in (connector.connect, lambda: connector.connect(copying=True), lambda: connector.replication({})):
        with contextlib.closing(connect()) as connection:
            assert connection.execute("select 1").fetchone() in ((1,), ("1",))


# Logging in


def test_a_key(jump: JumpServer, ssh_key: Path, postgres: PostgresServer) -> None:
    asserted(through(to(jump, ssh_key), postgres))
    assert set(jump.targets) == {("127.0.0.1", postgres.port)}
    assert jump.logins == 1, "the connections share a tunnel"


def test_an_encrypted_key(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, home: Path) -> None:
    (home / "passphrase").write_text(f"{PASSWORD}\n")
    encrypted = ssh_key.with_name("encrypted")
    asserted(through(to(jump, encrypted, passphrase=Secret(file=str(home / "passphrase"))), postgres))


def test_a_password(jump: JumpServer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUMP_PASSWORD", PASSWORD)
    asserted(through(to(jump, password=Secret(env="JUMP_PASSWORD")), postgres))


def test_one_of_the_usual_keys(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, home: Path) -> None:
    (home / ".ssh" / "id_ed25519").write_bytes(ssh_key.read_bytes())
    asserted(through(to(jump), postgres))


@pytest.fixture
def agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An agent without keys."""
    path = str(home / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    until(lambda: os.path.exists(path))  # noqa: PTH110  (a socket's path)
    yield
    process.terminate()
    process.wait()


def test_an_agent(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, agent: None) -> None:
    refused(through(to(jump), postgres), SourceRefusedError, "showed the 0 keys of the agent", "authorized_keys")
    subprocess.run(["ssh-add", "-q", ssh_key], check=True)
    asserted(through(to(jump), postgres))


def test_a_chain_of_jump_servers(
    jump_server: Callable[..., JumpServer], ssh_key: Path, postgres: PostgresServer
) -> None:
    outer, inner = jump_server(), jump_server(kind="ecdsa-sha2-nistp256")
    outer.names["inner.internal"] = inner.names["db.internal"] = "127.0.0.1"
    ssh = to(inner, ssh_key, host="inner.internal", via=to(outer, ssh_key))
    connector = through(ssh, postgres, host="db.internal")
    asserted(connector)
    assert (outer.targets, set(inner.targets)) == ([("inner.internal", inner.port)], {("db.internal", postgres.port)})
    outer.forbidden = True
    inner.cut()
    refused(connector, SourceUnavailableError, "cannot be reached from the one before it", "lets this machine in")


def test_openssh(ssh_key: Path, postgres: PostgresServer) -> None:
    """The server that nearly everybody has: its ways to refuse, to fail and to be cut."""
    with Sshd(asyncssh.read_private_key(ssh_key).export_public_key().decode()) as sshd:
        ssh = Ssh(host="127.0.0.1", port=sshd.port, user=USER, key=str(ssh_key), known_host_key=sshd.line)
        connector = through(ssh, postgres)
        asserted(connector)
        with contextlib.closing(connector.connect()) as connection:
            sshd.cut()
            with pytest.raises(SourceUnavailableError), translated("asking"):
                connection.execute("select 1")
        asserted(connector)
        dead = free_port()
        refused(through(ssh, postgres, port=dead), SourceUnavailableError, f"cannot reach 127.0.0.1:{dead}", "admits")
        foreign = ssh.model_copy(update={"key": str(ssh_key.with_name("foreign"))})
        refused(through(foreign, postgres), SourceRefusedError, f"does not let {USER} in", "authorized_keys")
    with Sshd("restrict " + asyncssh.read_private_key(ssh_key).export_public_key().decode()) as sshd:
        ssh = ssh.model_copy(update={"port": sshd.port, "known_host_key": sshd.line})
        refused(through(ssh, postgres), SourceRefusedError, "does not allow a tunnel", "AllowTcpForwarding")


# Which server it is


def test_known_hosts(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, home: Path) -> None:
    ssh = to(jump, ssh_key, known_host_key="")
    known = home / ".ssh" / "known_hosts"
    refused(through(ssh, postgres), SourceRefusedError, f"is not known; it shows {jump.line}", f'"{jump.line}"')
    known.write_text(f"[127.0.0.1]:{jump.port} {jump.line}\n")
    asserted(through(ssh, postgres))
    jump.cut()
    known.write_text(f"@revoked * {jump.line}\n")
    refused(through(ssh, postgres), SourceRefusedError, "that known_hosts forbids: Host key is revoked", "owner")


def test_a_changed_host_key(
    jump_server: Callable[..., JumpServer], ssh_key: Path, postgres: PostgresServer, home: Path
) -> None:
    before, after, of_another_kind = jump_server(), jump_server(), jump_server(kind="ecdsa-sha2-nistp256")
    for server in (after, of_another_kind):
        for pinned in (before.line, ""):
            (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {before.line}\n")
            ssh = to(server, ssh_key, known_host_key=pinned)
            where = "ssh.known_host_key" if pinned else "known_hosts"
            refused(through(ssh, postgres), SourceRefusedError, f"another host key than {where}", "in between")
        assert server.logins == 0
    asserted(through(to(after, ssh_key, known_host_key=f"{before.line}\nthe.host {after.line}\n"), postgres))


# What goes wrong


def refused(connector: Connector, kind: type[PenstockError], message: str, hint: str) -> None:
    for connect in (connector.connect, lambda: connector.replication({})):
        with pytest.raises(PenstockError) as caught:
            connect()
        assert message in caught.value.message
        assert hint in caught.value.hint, caught.value.hint
        assert type(caught.value) is kind, caught.value.message
        shown = "".join(traceback.format_exception(caught.value))
        assert PASSWORD not in shown
        assert SECRET not in shown


def test_keys_that_are_none(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, home: Path) -> None:
    encrypted, wrong = ssh_key.with_name("encrypted"), home / "wrong"
    wrong.write_text("wrong")
    (home / "junk").write_text("junk")
    for ssh, message, hint in (
        (to(jump, home / "nowhere"), "cannot be read: No such file", "path"),
        (to(jump, home / "junk"), "holds no private key", ".pub"),
        (to(jump, encrypted), "is encrypted, and there is no passphrase", "passphrase = { env"),
        (to(jump, encrypted, passphrase=Secret(file=str(wrong))), "the passphrase does not open", "ssh-keygen -y"),
        (to(jump), "no agent runs (SSH_AUTH_SOCK is not set), and ~/.ssh has none", "ssh-add"),
        (to(jump, ssh_key, known_host_key="ssh-ed25519 junk"), "known_host_key is not a public key", "ssh-keyscan"),
        (to(jump, password=Secret(env="NOT_SET_HERE")), "NOT_SET_HERE is not set", "export"),
    ):
        refused(through(ssh, postgres), ConfigError, message, hint)


def test_logins_that_are_refused(
    jump: JumpServer, ssh_key: Path, postgres: PostgresServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign, wrong = ssh_key.with_name("foreign"), home / "wrong"
    wrong.write_text(SECRET)
    password = Secret(file=str(wrong))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "nobody"))
    for ssh, message, hint in (
        (to(jump, foreign), f"does not let {USER} in, who showed the key {foreign}", "authorized_keys"),
        (to(jump, ssh_key, user="somebody"), "does not let somebody in", "authorized_keys"),
        (to(jump, password=password), "who showed a password", "PasswordAuthentication"),
        (to(jump, foreign, password=password), "and a password", "authorized_keys"),
        (to(jump), "nobody answers at SSH_AUTH_SOCK) and 0 of the usual files", "ssh.key"),
    ):
        refused(through(ssh, postgres), SourceRefusedError, message, hint)
    assert jump.logins == 0


def test_jump_servers_that_are_not_there(
    jump: JumpServer,
    ssh_key: Path,
    postgres: PostgresServer,
    proxy_to: Callable[[int], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssh_module, "CONNECT_SECONDS", 0.5)
    silent = proxy_to(jump.port)
    silent.blackhole()
    for changed, message, hint in (
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid:", "DNS"),
        ({"port": free_port()}, "refuses the connection", "firewall or security group"),
        ({"port": silent.port}, "gives no answer within", "firewall or security group"),
        ({"port": postgres.port}, "ended the conversation", "SSH server"),
    ):
        refused(through(to(jump, ssh_key, **changed), postgres), SourceUnavailableError, message, hint)


def test_databases_that_the_jump_server_cannot_reach(
    jump: JumpServer, ssh_key: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = to(jump, ssh_key)
    port = free_port()
    refused(through(ssh, postgres, port=port), SourceUnavailableError, f"cannot reach 127.0.0.1:{port}", "admits")
    refused(through(ssh, postgres, host="no.such.host.invalid"), SourceUnavailableError, "cannot reach no.such", "host")
    with socket.socket() as full:  # takes no connection any more: to the jump server a firewall that swallows packets
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filling = [socket.socket() for _ in range(3)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        monkeypatch.setattr(tunnel, "CHANNEL_SECONDS", 0.5)
        silent = through(ssh, postgres, port=full.getsockname()[1])
        refused(silent, SourceUnavailableError, "gets no answer from 127.0.0.1", "admit the jump server")
        for each in filling:
            each.close()
    jump.forbidden = True
    refused(through(ssh, postgres), SourceRefusedError, "does not allow a tunnel", "AllowTcpForwarding")
    jump.forbidden = False
    refused(through(ssh, postgres, password=SECRET), SourceRefusedError, "password authentication failed", "password")


@pytest.mark.parametrize("host", ["", "/var/run/postgresql"])
def test_a_dsn_without_a_host(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, host: str) -> None:
    refused(through(to(jump, ssh_key), postgres, host=host), ConfigError, "names no host", "as the jump server")


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
    jump: JumpServer,
    ssh_key: Path,
    postgres: PostgresServer,
    proxy_to: Callable[[int], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssh_module, "KEEPALIVE_SECONDS", 0.2)
    proxy = proxy_to(jump.port)
    connector = through(to(jump, ssh_key, port=proxy.port), postgres)
    with contextlib.closing(connector.connect()) as connection:
        proxy.blackhole()
        began = time.monotonic()
        with pytest.raises(SourceUnavailableError), translated("asking"):
            connection.execute("select 1")
        assert time.monotonic() - began < 5
    proxy.recover()
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
        time.sleep(0.3)
        connection.execute("select 1")
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
