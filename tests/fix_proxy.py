"""A TCP proxy that misbehaves on demand: latency, cut, blackhole, refusal. Runs in a thread of its own, so it serves any process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

CHUNK = 1 << 16


class Proxy:
    """Listens on ``port`` and passes everything on to ``target_port``, both on loopback."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.latency_seconds = 0.0  # for each piece, either way
        self.refuse = False  # new connections are reset at once
        self.cut_after_bytes: int | None = None  # from the server, over all connections; then everything is cut
        self.change: Callable[[bytes], bytes] = lambda piece: piece  # what the server says
        self.connections = 0  # made so far
        self._clients: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}
        self._stranded: set[asyncio.StreamReader] = set()
        self._ending: asyncio.Event
        self._flowing: asyncio.Event
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port = self._call(self._listen())

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> int:
        self._ending = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuse:
            _reset(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, server_writer}
        self._clients[reader] = writer
        try:
            await asyncio.gather(
                self._pass(reader, server_writer, from_server=False),
                self._pass(server_reader, writer, from_server=True),
            )
            if reader in self._stranded:
                await self._ending.wait()
        finally:
            self._clients.pop(reader, None)
            self._writers -= {writer, server_writer}
            writer.close()
            server_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool) -> None:
        try:
            while piece := await reader.read(CHUNK):
                await self._flowing.wait()
                if self.latency_seconds:
                    await asyncio.sleep(self.latency_seconds)
                if from_server and self._used_up(len(piece)):
                    self._cut_all()
                    return
                writer.write(self.change(piece) if from_server else piece)
                await writer.drain()
            if reader not in self._stranded:
                writer.write_eof()
        except OSError:
            if reader not in self._stranded:
                _reset(writer)

    def _used_up(self, size: int) -> bool:
        if self.cut_after_bytes is None:
            return False
        self.cut_after_bytes -= size
        if self.cut_after_bytes > 0:
            return False
        self.cut_after_bytes = None
        return True

    def _cut_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""

        async def work() -> None:
            self._cut_all()

        self._call(work())

    def strand(self) -> None:
        """Reset the clients, and never tell the server, as a firewall that has forgotten its connections."""

        async def work() -> None:
            self._stranded |= set(self._clients)
            for writer in self._clients.values():
                _reset(writer)

        self._call(work())

    def blackhole(self) -> None:
        """Swallow everything without a word, until ``recover``."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def recover(self) -> None:
        """Let everything flow again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def close(self) -> None:
        """End."""

        async def work() -> None:
            self._server.close()
            self._flowing.set()
            self._ending.set()
            self._cut_all()
            if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(tasks, timeout=5)

        self._call(work())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a broken link does."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.fixture
def proxy_to() -> Iterator[Callable[[int], Proxy]]:
    """Makes proxies to ports on loopback."""
    made: list[Proxy] = []

    def make(port: int) -> Proxy:
        made.append(Proxy(port))
        return made[-1]

    yield make
    for each in made:
        each.close()
