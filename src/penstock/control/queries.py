"""Asking a running pipe: an embedded ClickHouse belongs to one process, so that process answers for the others.

A Unix socket that only the owner may open. One request a connection: a line of JSON; the answer is a line of JSON
and, after a success, the result's bytes, as many as the line says.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from penstock.clickhouse.client import Client
from penstock.config import Pipe, load
from penstock.errors import ConfigError, DestinationError, PenstockError
from penstock.observe.status import PipeStatus, as_json, from_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

LONGEST_PATH = 100  # of a Unix socket: sun_path holds 108 bytes
LONGEST_REQUEST = 1 << 20
GOODBYE_SECONDS = 0.5  # for the last answers, when the pipe ends
AT_A_TIME = 4  # queries; others wait, and the pipe's own threads stay its own


class Answering(Protocol):
    """A running pipe."""

    def status(self) -> PipeStatus:
        """The pipe as it is at the moment; called in the loop's thread."""

    def query(self, sql: str, output_format: str) -> bytes:
        """Read the destination; called in a thread."""

    def resync(self, names: Sequence[str]) -> None:
        """Copy tables again; called in a thread. Raises ConfigError for a table that the pipe does not have."""


def address(folder: Path, pipe_name: str) -> Path:
    """Where the pipe's socket lies: beside its state, or in a private temporary folder where that path is too long."""
    path = folder / f"{pipe_name}.sock"
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return path
    private = Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.is_symlink() or private.stat().st_uid != os.getuid():
        raise ConfigError(
            f"{private} belongs to somebody else", hint="Set PENSTOCK_HOME to a folder with a shorter path."
        )
    return private / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"


@contextlib.asynccontextmanager
async def answer(folder: Path, pipe_name: str, pipe: Answering) -> AsyncIterator[None]:
    """Answer queries while the context lasts. Call it while holding the pipe."""
    path = address(folder, pipe_name)
    path.unlink(missing_ok=True)
    threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="query")
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            writer.write(await _reply(pipe, reader, threads))
            await writer.drain()
        except (OSError, asyncio.CancelledError):
            return  # whoever asked has gone, or the pipe ends
        finally:
            writer.close()
            serving.discard(asyncio.current_task())

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    path.chmod(0o600)  # before it listens: nobody else gets in
    server = await asyncio.start_unix_server(serve, sock=listening, limit=LONGEST_REQUEST)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)
        if last := [task for task in serving if task]:
            await asyncio.wait(last, timeout=GOODBYE_SECONDS)
        threads.shutdown(wait=False, cancel_futures=True)


async def _reply(pipe: Answering, reader: asyncio.StreamReader, threads: ThreadPoolExecutor) -> bytes:
    try:
        request = json.loads(await reader.readline())
        if "status" in request:
            result = json.dumps(as_json(pipe.status())).encode()
        else:
            result = await asyncio.get_running_loop().run_in_executor(threads, _work(pipe, request))
    except PenstockError as error:
        known = isinstance(error, ConfigError)
        return _line({"error": error.message, "hint": error.hint, "kind": "Config" if known else "Destination"})
    except (ValueError, KeyError, TypeError):
        return _line({"error": "the request is not one of penstock query"})
    return _line({"bytes": len(result)}) + result


def _work(pipe: Answering, request: dict[str, Any]) -> Callable[[], bytes]:
    if "resync" in request:
        names = [str(each) for each in request["resync"]]
        return partial(_resync, pipe, names)
    return partial(pipe.query, str(request["sql"]), str(request["format"]))


def _resync(pipe: Answering, names: Sequence[str]) -> bytes:
    pipe.resync(names)
    return b""


def _line(head: dict[str, object]) -> bytes:
    return json.dumps(head).encode() + b"\n"


def ask(folder: Path, pipe_name: str, sql: str, output_format: str) -> bytes | None:
    """The answer of the process that runs the pipe; None when none runs. Raises DestinationError or ConfigError."""
    return _ask(folder, pipe_name, {"sql": sql, "format": output_format})


def ask_resync(folder: Path, pipe_name: str, names: Sequence[str]) -> bool:
    """Have a running pipe copy tables again; False when none runs. Raises ConfigError for a table that it does not have."""
    return _ask(folder, pipe_name, {"resync": list(names)}) is not None


def ask_status(folder: Path, pipe_name: str) -> PipeStatus | None:
    """How a running pipe is; None when none runs."""
    answered = _ask(folder, pipe_name, {"status": True})
    return None if answered is None else from_json(json.loads(answered))


def _ask(folder: Path, pipe_name: str, what: dict[str, object]) -> bytes | None:
    request = _line(what)
    if len(request) >= LONGEST_REQUEST:
        raise ConfigError(f"the request is longer than {LONGEST_REQUEST >> 20} MiB", hint="Ask something shorter.")
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(address(folder, pipe_name)))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        try:
            connection.sendall(request)
            with connection.makefile("rb") as answer_file:
                head = json.loads(answer_file.readline() or b"{}")
                result = answer_file.read()
        except OSError:
            head, result = {}, b""
    if "error" in head:
        kind = ConfigError if head.get("kind") == "Config" else DestinationError
        raise kind(head["error"], hint=head.get("hint", ""))
    if head.get("bytes") != len(result):
        raise DestinationError("the pipe ended before it had answered", hint="Start it, and ask again.")
    return result


def definition_of(pipe: str) -> Pipe | None:
    """The definition, where ``pipe`` is the path of one; None where it is a name."""
    return load(Path(pipe)) if pipe.endswith(".toml") or Path(pipe).is_file() else None


def ask_pipe(folder: Path, pipe: str, sql: str, output_format: str) -> bytes:
    """The result in ``output_format``. ``pipe`` is a definition's path, or the name of a pipe that runs."""
    definition = definition_of(pipe)
    if definition is not None and not definition.destination.dsn.startswith("chdb:"):
        return _read(definition, sql, output_format, folder)
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
