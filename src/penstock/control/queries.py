"""Asking a running pipe: an embedded ClickHouse belongs to one process, so that process answers for the others.

A Unix socket that only the owner may open. One request a connection: a line of JSON; the answer is a line of JSON
and, after a success, the result's bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from penstock.clickhouse.client import Client
from penstock.config import Pipe, load
from penstock.errors import ConfigError, DestinationError, PenstockError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONGEST_PATH = 100  # of a Unix socket: sun_path holds 108 bytes
LONGEST_REQUEST = 1 << 20


class Answering(Protocol):
    """A running pipe."""

    def query(self, sql: str, output_format: str) -> bytes:
        """Read the destination; called in a thread."""


def address(folder: Path, pipe_name: str) -> Path:
    """Where the pipe's socket lies: beside its state, or in a private temporary folder where that path is too long."""
    path = folder / f"{pipe_name}.sock"
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return path
    private = Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    return private / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"


@contextlib.asynccontextmanager
async def answer(folder: Path, pipe_name: str, pipe: Answering) -> AsyncIterator[None]:
    """Answer queries while the context lasts. Call it while holding the pipe."""
    path = address(folder, pipe_name)
    path.unlink(missing_ok=True)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(await _reply(pipe, await reader.readline()))
            await writer.drain()
        writer.close()

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    path.chmod(0o600)  # before it listens: nobody else gets in
    server = await asyncio.start_unix_server(serve, sock=listening, limit=LONGEST_REQUEST)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _reply(pipe: Answering, line: bytes) -> bytes:
    try:
        request = json.loads(line)
        result = await asyncio.to_thread(pipe.query, str(request["sql"]), str(request["format"]))
    except PenstockError as error:
        return json.dumps({"error": error.message, "hint": error.hint}).encode() + b"\n"
    except (ValueError, KeyError, TypeError):
        return json.dumps({"error": "the request is not one of penstock query", "hint": ""}).encode() + b"\n"
    return b"{}\n" + result


def ask(folder: Path, pipe_name: str, sql: str, output_format: str) -> bytes | None:
    """The answer of the process that runs the pipe; None when none runs. Raises DestinationError."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(address(folder, pipe_name)))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.sendall(json.dumps({"sql": sql, "format": output_format}).encode() + b"\n")
        with connection.makefile("rb") as answer_file:
            head = json.loads(answer_file.readline() or b'{"error": "the pipe ended before it answered"}')
            if "error" in head:
                raise DestinationError(head["error"], hint=head.get("hint", ""))
            return answer_file.read()


def ask_pipe(folder: Path, pipe: str, sql: str, output_format: str) -> bytes:
    """The result in ``output_format``. ``pipe`` is a definition's path, or the name of a pipe that runs."""
    definition = load(Path(pipe)) if pipe.endswith(".toml") or Path(pipe).is_file() else None
    result = ask(folder, definition.name if definition else pipe, sql, output_format)
    if result is not None:
        return result
    if definition is None:
        raise ConfigError(f'no pipe "{pipe}" runs here', hint="Give the path of its definition, such as shop.toml.")
    return _read(definition, sql, output_format, folder)


def _read(definition: Pipe, sql: str, output_format: str, folder: Path) -> bytes:
    client = Client.open(definition.destination, scratch=folder / f"{definition.name}.query")
    try:
        return client.raw(sql, output_format, database=definition.database)
    finally:
        client.close()
