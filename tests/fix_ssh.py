"""Jump servers for tests: SSH servers of asyncssh in a thread of their own, and one of OpenSSH's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

from penstock import ssh

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from tests.fix_proxy import Proxy

USER = "jumper"
PASSWORD = "sprung-%41"


class JumpServer:
    """An SSH server on loopback that lets USER in, with one key or PASSWORD, and connects wherever it is asked to."""

    def __init__(
        self, key: asyncssh.SSHKey, *, kind: str = "ssh-ed25519", port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        self.host_key = asyncssh.generate_private_key(kind)
        self.allowed = key.convert_to_public()
        self.names: dict[str, str] = {}  # of the network behind it
        self.forbidden = False
        self.logins = 0
        self.targets: list[tuple[str, int]] = []
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._beyond: list[Any] = []  # halves of ways to the servers behind it
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jump server", daemon=True)
        self._thread.start()
        self._server: asyncssh.SSHAcceptor
        self.port = self._call(self._listen(host, port))

    @property
    def line(self) -> str:
        """Its public key, as ssh-keyscan prints it."""
        return self.host_key.export_public_key().decode().strip()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, host: str, port: int) -> int:
        self._server = await asyncssh.listen(
            host, port, server_host_keys=[self.host_key], server_factory=lambda: _Login(self), config=None
        )
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """End every connection at once; new ones are taken."""

        async def work() -> None:
            for connection in list(self._connections):
                connection.abort()

        self._call(work())

    def close(self) -> None:
        async def work() -> None:
            self._server.close()
            for connection in list(self._connections):
                connection.abort()
            if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(tasks, timeout=5)
            for each in self._beyond:  # asyncssh forgets those whose channel was cut while they were made
                (each._peer or each).close()
            await asyncio.sleep(0.01)

        self._call(work())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Login(asyncssh.SSHServer):
    def __init__(self, server: JumpServer) -> None:
        self._server = server

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._server._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self._connection)

    def auth_completed(self) -> None:
        self._server.logins += 1

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == USER and key == self._server.allowed

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        self._server.targets.append((dest_host, dest_port))
        if self._server.forbidden:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "forwarding is off")
        return self._forward(self._server.names.get(dest_host, dest_host), dest_port)

    async def _forward(self, host: str, port: int) -> Any:
        half = await self._connection.forward_connection(host, port)
        self._server._beyond.append(half)
        return half


@pytest.fixture(scope="session")
def ssh_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key's file, which the jump servers know."""
    path = tmp_path_factory.mktemp("ssh") / "id_ed25519"
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path)
    key.write_public_key(path.with_suffix(".pub"))
    key.write_private_key(path.with_name("encrypted"), passphrase=PASSWORD, rounds=50)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(path.with_name("foreign"))
    path.chmod(0o600)
    return path


@pytest.fixture
def jump_server(ssh_key: Path) -> Iterator[Callable[..., JumpServer]]:
    """Makes jump servers."""
    key = asyncssh.read_private_key(ssh_key)
    with contextlib.ExitStack() as running:

        def make(**options: Any) -> JumpServer:
            server = JumpServer(key, **options)
            running.callback(server.close)
            return server

        yield make


@pytest.fixture
def jump(jump_server: Callable[..., JumpServer]) -> JumpServer:
    """A jump server."""
    return jump_server()


@pytest.fixture
def jump_proxy(jump: JumpServer, proxy_to: Callable[[int], Proxy]) -> Proxy:
    """A proxy in front of the jump server."""
    return proxy_to(jump.port)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither keys, known hosts nor agent of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(ssh, "KNOWN_HOSTS", ("~/.ssh/known_hosts",))
    (tmp_path / ".ssh").mkdir()
    return tmp_path
