"""Ways through a jump server: a port on loopback for each server behind it, for as long as the process lives.

The SSH connections live in an event loop of a thread of their own, because blocking code connects through them. A connection that
is cut is opened again by whoever needs it next, behind the same port: a query's cancellation, which makes a connection of its own,
finds its way too. The ports are TCP, not sockets in a folder, because libpq speaks TLS over TCP only, and ``sslmode=verify-full``
shall hold through the tunnel; instead every connection is refused that does not come from a process of the same user.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncssh
import structlog

from penstock import ssh as jump
from penstock.errors import PenstockError
from penstock.ssh import TunnelError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from penstock.config import Ssh

T = TypeVar("T")
log = structlog.get_logger()

LOOPBACK = "127.0.0.1"
CHANNEL_SECONDS = 8.0  # for the jump server to reach the server behind it; less than libpq waits
IDLE_SECONDS = 60.0  # so long an SSH connection is kept that nobody uses
CHUNK = 1 << 18
WINDOW = 4 << 20  # bytes on their way: 40 MB/s over a link of 100 ms


class Tunnel:
    """Leads through one jump server, or a chain of them."""

    def __init__(self, ssh: Ssh, loop: asyncio.AbstractEventLoop) -> None:
        self._ssh = ssh
        self._loop = loop
        self._chain: list[asyncssh.SSHClientConnection] = []  # the first jump server's connection first
        self._opening: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._ports: dict[tuple[str, int], asyncio.Server] = {}
        self._troubles: dict[tuple[str, int], tuple[float, TunnelError | PenstockError]] = {}
        self._passages = 0
        self._used = 0.0
        self._resting: asyncio.TimerHandle | None = None

    @property
    def where(self) -> str:
        """The jump server, for messages."""
        return jump.where(self._ssh)

    def port_to(self, host: str, port: int) -> int:
        """The port on LOOPBACK behind which ``host`` is, as the jump server knows it; the SSH connection is open. Blocking.

        Raises TunnelError and ConfigError.
        """
        return asyncio.run_coroutine_threadsafe(self._port_to(host, port), self._loop).result()

    def reach(self, host: str, port: int) -> None:
        """See whether the jump server reaches ``host``, for whoever does not ask for ``trouble`` afterwards. Blocking.

        Raises as ``port_to``.
        """
        asyncio.run_coroutine_threadsafe(self._reach((host, port)), self._loop).result()

    async def _reach(self, target: tuple[str, int]) -> None:
        _, writer = await self._channel(target)
        writer.channel.abort()

    def trouble(self, host: str, port: int, since: float) -> TunnelError | PenstockError | None:
        """Why a connection to ``host`` failed after ``since`` (time.monotonic), if it was the tunnel's fault."""
        at, error = self._troubles.get((host, port), (0.0, None))
        return error if at >= since else None

    async def _port_to(self, host: str, port: int) -> int:
        await self._connection()
        target = (host, port)
        if target not in self._ports:

            async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._pass(target, reader, writer)

            server = await asyncio.start_server(passed, LOOPBACK, 0, limit=CHUNK)
            if target in self._ports:  # somebody was quicker
                server.close()
            else:
                self._ports[target] = server
        return int(self._ports[target].sockets[0].getsockname()[1])

    # The SSH connection

    async def _connection(self) -> asyncssh.SSHClientConnection:
        """The open one, or a new one, which everybody who needs it waits for."""
        self._used = self._loop.time()
        if self._chain and not self._chain[-1].is_closed():
            return self._chain[-1]
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> asyncssh.SSHClientConnection:
        self._close_chain()
        opened: list[asyncssh.SSHClientConnection] = []
        try:
            for each in _hops(self._ssh):
                opened.append(await jump.connect(each, opened[-1] if opened else None))
        except BaseException:
            for connection in reversed(opened):
                connection.abort()
            raise
        self._chain = opened
        if self._resting:
            self._resting.cancel()
        self._resting = self._loop.call_later(IDLE_SECONDS, self._rest)
        log.info("tunnel open", jump_server=self.where)
        return opened[-1]

    def _rest(self) -> None:
        """Close the connection that nobody uses."""
        idle = self._loop.time() - self._used
        if self._passages == 0 and idle >= IDLE_SECONDS:
            self._close_chain()
        elif self._chain:
            self._resting = self._loop.call_later(IDLE_SECONDS, self._rest)

    def _close_chain(self) -> None:
        for connection in reversed(self._chain):
            connection.abort()
        self._chain = []

    async def close(self) -> None:
        """End everything."""
        for server in self._ports.values():
            server.close()
        self._close_chain()

    # What passes through

    async def _pass(self, target: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._passages += 1
        try:
            if not _is_ours(writer):
                return
            try:
                far_reader, far_writer = await self._channel(target)
            except (TunnelError, PenstockError) as error:
                self._troubles[target] = (time.monotonic(), error)
                return
            try:
                await asyncio.gather(_pour(reader, far_writer), _pour(far_reader, writer))
            except BaseException:
                far_writer.channel.abort()
                raise
            far_writer.close()
        except OSError:  # whoever was connected has gone
            pass
        except asyncssh.Error as error:
            self._troubles[target] = (time.monotonic(), jump.no_way_on(error, self._ssh, target))
        finally:
            writer.close()
            self._passages -= 1
            self._used = self._loop.time()

    async def _channel(self, target: tuple[str, int]) -> tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]:
        tried = False
        while True:
            connection = await self._connection()
            try:
                async with asyncio.timeout(CHANNEL_SECONDS):
                    return await connection.open_connection(*target, window=WINDOW)
            except (TimeoutError, asyncssh.Error) as error:
                await asyncio.sleep(0)  # a connection that is just being lost knows it by then
                if tried or not connection.is_closed():
                    raise jump.no_way_on(error, self._ssh, target) from None
                tried = True


def _hops(ssh: Ssh) -> list[Ssh]:
    return [*(_hops(ssh.via) if ssh.via else ()), ssh]


async def _pour(reader: Any, writer: Any) -> None:
    """Everything from one side to the other, with its end."""
    while piece := await reader.read(CHUNK):
        if writer.is_closing():
            raise ConnectionResetError
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """Whether the other end belongs to a process of this user; where the system does not tell (no Linux), everybody's is taken."""
    table = Path("/proc/self/net/tcp")
    if not table.exists():
        return True
    theirs, here = (_as_listed(writer.get_extra_info(name)) for name in ("peername", "sockname"))
    for line in table.read_text().splitlines():
        words = line.split()
        if words[1:3] == [theirs, here]:
            return int(words[7]) == os.getuid()
    return False


def _as_listed(address: tuple[str, int]) -> str:
    """An IPv4 address as the kernel's table has it."""
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"


# The thread, and the tunnels in it

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_tunnels: dict[Ssh, Tunnel] = {}


def through(ssh: Ssh) -> Tunnel:
    """The tunnel through this jump server; one for all who ask in this process."""
    global _loop  # noqa: PLW0603  (one thread for all tunnels, started at the first)
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="tunnels", daemon=True).start()
            atexit.register(_close_all)
        if ssh not in _tunnels:
            _tunnels[ssh] = Tunnel(ssh, _loop)
        return _tunnels[ssh]


def _close_all() -> None:
    with _lock, contextlib.suppress(TimeoutError):
        for each in _tunnels.values():
            _done(each.close())
        _tunnels.clear()


def _done(work: Coroutine[Any, Any, T], seconds: float = 2.0) -> T:
    if _loop is None:
        raise RuntimeError("the tunnels' thread does not run")
    return asyncio.run_coroutine_threadsafe(work, _loop).result(seconds)
