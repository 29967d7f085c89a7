"""SSH tunnels: every way to log in, and what each refusal says."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from typing import TYPE_CHECKING

import asyncssh
import pytest
from tests.fix_postgres import until
from tests.fix_ssh import PASSWORD, USER
from tests.fix_tls import SECRET
from tests.servers.openssh import Sshd
from tests.servers.postgres import PostgresServer, free_port
from tests.ways import asserted, refused, through, to

from penstock import ssh as ssh_module
from penstock import tunnel
from penstock.config import Secret, Ssh
from penstock.errors import ConfigError, SourceRefusedError, SourceUnavailableError
from penstock.postgres.connection import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_proxy import Proxy
    from tests.fix_ssh import JumpServer

pytestmark = [pytest.mark.pg("== 15"), pytest.mark.usefixtures("own_home")]


# Logging in


def test_a_key(jump: JumpServer, ssh_key: Path, postgres: PostgresServer) -> None:
    asserted(through(to(jump, ssh_key), postgres))
    assert set(jump.targets) == {("127.0.0.1", postgres.port)}
    assert jump.logins == 1, "the connections share a tunnel"


def test_an_encrypted_key(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, own_home: Path) -> None:
    (own_home / "passphrase").write_text(f"{PASSWORD}\n")
    encrypted = ssh_key.with_name("encrypted")
    asserted(through(to(jump, encrypted, passphrase=Secret(file=str(own_home / "passphrase"))), postgres))


def test_a_password(jump: JumpServer, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUMP_PASSWORD", PASSWORD)
    asserted(through(to(jump, password=Secret(env="JUMP_PASSWORD")), postgres))


def test_one_of_the_usual_keys(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, own_home: Path) -> None:
    (own_home / ".ssh" / "id_ed25519").write_bytes(ssh_key.read_bytes())
    asserted(through(to(jump), postgres))


@pytest.fixture
def agent(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An agent without keys."""
    path = str(own_home / "agent")
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


def test_known_hosts(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, own_home: Path) -> None:
    ssh = to(jump, ssh_key, known_host_key="")
    known = own_home / ".ssh" / "known_hosts"
    refused(through(ssh, postgres), SourceRefusedError, f"is not known; it shows {jump.line}", f'"{jump.line}"')
    known.write_text(f"[127.0.0.1]:{jump.port} {jump.line}\n")
    asserted(through(ssh, postgres))
    jump.cut()
    known.write_text(f"@revoked * {jump.line}\n")
    refused(through(ssh, postgres), SourceRefusedError, "that known_hosts forbids: Host key is revoked", "owner")


def test_a_changed_host_key(
    jump_server: Callable[..., JumpServer], ssh_key: Path, postgres: PostgresServer, own_home: Path
) -> None:
    before, after, of_another_kind = jump_server(), jump_server(), jump_server(kind="ecdsa-sha2-nistp256")
    for server in (after, of_another_kind):
        for pinned in (before.line, ""):
            (own_home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {before.line}\n")
            ssh = to(server, ssh_key, known_host_key=pinned)
            where = "ssh.known_host_key" if pinned else "known_hosts"
            refused(through(ssh, postgres), SourceRefusedError, f"another host key than {where}", "in between")
        assert server.logins == 0
    asserted(through(to(after, ssh_key, known_host_key=f"{before.line}\nthe.host {after.line}\n"), postgres))


# What goes wrong


def test_keys_that_are_none(jump: JumpServer, ssh_key: Path, postgres: PostgresServer, own_home: Path) -> None:
    encrypted, wrong = ssh_key.with_name("encrypted"), own_home / "wrong"
    wrong.write_text("wrong")
    (own_home / "junk").write_text("junk")
    for ssh, message, hint in (
        (to(jump, own_home / "nowhere"), "cannot be read: No such file", "path"),
        (to(jump, own_home / "junk"), "holds no private key", ".pub"),
        (to(jump, encrypted), "is encrypted, and there is no passphrase", "passphrase = { env"),
        (to(jump, encrypted, passphrase=Secret(file=str(wrong))), "the passphrase does not open", "ssh-keygen -y"),
        (to(jump), "no agent runs (SSH_AUTH_SOCK is not set), and ~/.ssh has none", "ssh-add"),
        (to(jump, ssh_key, known_host_key="ssh-ed25519 junk"), "known_host_key is not a public key", "ssh-keyscan"),
        (to(jump, password=Secret(env="NOT_SET_HERE")), "NOT_SET_HERE is not set", "export"),
    ):
        refused(through(ssh, postgres), ConfigError, message, hint)


def test_logins_that_are_refused(
    jump: JumpServer, ssh_key: Path, postgres: PostgresServer, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign, wrong = ssh_key.with_name("foreign"), own_home / "wrong"
    wrong.write_text(SECRET)
    password = Secret(file=str(wrong))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(own_home / "nobody"))
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
    jump: JumpServer, jump_proxy: Proxy, ssh_key: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_module, "CONNECT_SECONDS", 0.5)
    jump_proxy.blackhole()
    for changed, message, hint in (
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid:", "DNS"),
        ({"port": free_port()}, "refuses the connection", "firewall or security group"),
        ({"port": jump_proxy.port}, "gives no answer within", "firewall or security group"),
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
