"""Opens the driver's connections: to a server over HTTP(S), or to a chDB folder inside this process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import urllib3
import urllib3.exceptions
from clickhouse_connect.driver.exceptions import ClickHouseError

from penstock.clickhouse import failures
from penstock.errors import ConfigError, DestinationAwayError, DestinationRefusedError
from penstock.language import joined, phrase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clickhouse_connect.driver import Client as Driver

    from penstock.clickhouse.address import Address
    from penstock.config import Ssh

Scalar = str | int | float | bool
RESULT_BYTES = 256 << 20  # of a user's query to an embedded database, as values; as text it is several times as much


def connect(where: Address, settings: dict[str, Scalar]) -> Driver:
    """One connection. Raises the driver's errors as they are, and ours for a folder that cannot be opened."""
    return _embedded(where.path, settings) if where.path else _over_http(where, settings)


def reading_settings(where: Address) -> dict[str, Scalar]:
    """Settings of a session that only reads. In our own process a query cannot lift them: ``readonly = 1`` refuses its SETTINGS."""
    if not where.path:
        return {"readonly": 2}
    most = {"max_memory_usage": _memory_bytes() // 8, "max_result_bytes": RESULT_BYTES}
    return {**most, "result_overflow_mode": "throw", "readonly": 1}


def _over_http(where: Address, settings: dict[str, Scalar]) -> Driver:
    options: dict[str, Any] = {"host": where.host, "port": where.port, **where.timeouts, **where.tls}
    if where.ssh:
        options |= _through(where, where.ssh)
    if not where.verify:  # asked for: a warning a statement helps nobody
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return clickhouse_connect.get_client(
        username=where.user,
        password=where.password,
        interface="https" if where.secure else "http",
        verify=where.verify,
        compress=False if where.on_loopback else "lz4",
        client_name="penstock",
        query_retries=0,
        autogenerate_session_id=False,
        dedicated_pool=True,
        settings=settings,
        **options,
    )


def _through(where: Address, ssh: Ssh) -> dict[str, Any]:
    """What the driver is to be told instead of the server's own address; TLS checks the server's own name."""
    from penstock import tunnel  # asyncssh takes a while to load, and most pipes have no tunnel
    from penstock.ssh import TunnelError

    way = tunnel.through(ssh)
    try:
        port = way.port_to(where.host, where.port)
        way.reach(where.host, where.port)
    except TunnelError as error:
        kind = DestinationRefusedError if error.lasting else DestinationAwayError
        raise kind(joined(where.name, error.message, between=": "), hint=error.hint) from None
    return {"host": tunnel.LOOPBACK, "port": port, **({"server_host_name": where.host} if where.secure else {})}


def _embedded(path: Path, settings: dict[str, Scalar]) -> Driver:
    with folder_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    try:
        return clickhouse_connect.get_client(
            interface="chdb", path=str(path), settings={"max_memory_usage": _memory_bytes() // 2, **settings}
        )
    except ImportError:
        raise ConfigError(
            phrase("destination.dsn asks for chDB, which is not installed"),
            hint=phrase("Run: {command}", command="pip install 'penstock[embedded]'"),
        ) from None
    except ClickHouseError as error:
        if failures.code_of(error, str(error)) != failures.BAD_ARGUMENTS:
            raise
        raise _not_opened(path, str(error)) from None


def _memory_bytes() -> int:
    """Of the machine, or of the container that this process is in."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return machine


def _not_opened(path: Path, text: str) -> DestinationRefusedError:
    if "different path" in text:
        return DestinationRefusedError(
            phrase("chDB at {path} cannot be opened: this process has another chDB folder open", path=path),
            hint=phrase("One process can use one folder; run the other pipe in a process of its own."),
        )
    holder = _holder(path)
    if holder:
        return DestinationRefusedError(
            phrase("chDB at {path} cannot be opened: process {holder} uses it", path=path, holder=holder),
            hint=phrase("Stop the other process, or ask the running pipe with `penstock query`."),
        )
    return DestinationRefusedError(
        phrase("chDB at {path} cannot be opened: its files cannot be used", path=path),
        hint=phrase("Look at the folder's owner and permissions."),
    )


def _holder(path: Path) -> int:
    """The living process that has written its id into the folder, 0 for none."""
    try:
        holder = int((path / "status").read_text().partition("\n")[0].removeprefix("PID: "))
        os.kill(holder, 0)
    except PermissionError:
        return holder
    except (OSError, ValueError):
        return 0
    return holder


@contextlib.contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """What the operating system says about a folder of ours, as our errors."""
    try:
        yield
    except OSError as error:
        raise failures.of_folder(folder, error) from None
