"""One running PostgreSQL on loopback, with a data folder of its own: start, stop, restart, kill."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import make_conninfo
from tests.servers.postgres_binaries import PASSWORD, SUPERUSER, binaries, copy_data, run_as, template

if TYPE_CHECKING:
    from tests.servers.postgres_extensions import Build

SETTINGS = {
    "wal_level": "logical",
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "120",
    "max_wal_senders": "50",
    "max_replication_slots": "50",
    "max_prepared_transactions": "10",
    "log_line_prefix": "%m [%p] %q%a ",
}
HBA = """\
local all,replication all trust
host all,replication barred 127.0.0.1/32 reject
host all,replication all 127.0.0.1/32 scram-sha-256
"""
START_SECONDS = 60

# A server dies with the thread that started it (PR_SET_PDEATHSIG), so that a killed test run leaves none behind: this thread
# lives as long as the process.
_starter = ThreadPoolExecutor(1, "server-starter")


class PostgresServer:
    """A PostgreSQL of major version ``version``, running after ``start()``. ``settings`` are postgresql.conf's, over SETTINGS.

    ``hba`` is pg_hba.conf; it must let the superuser in by password over TCP. ``build``: other programs of that version;
    ``data``: a folder to begin with instead of a fresh one.
    """

    def __init__(
        self,
        version: int,
        settings: dict[str, str] | None = None,
        hba: str = HBA,
        build: Build | None = None,
        data: Path | None = None,
    ) -> None:
        self._hba = hba
        self.version = version
        self.settings = {**SETTINGS, **(settings or {})}
        self.port = 0
        self._programs = build.programs if build else binaries(version)
        self._libraries = {"LD_LIBRARY_PATH": str(build.libraries)} if build and build.libraries else {}
        self._home = Path(tempfile.mkdtemp(prefix=f"pg{version}-"))
        self._data = self._home / "data"
        copy_data(data or template(version), self._data)
        if identity := run_as():
            os.chown(self._home, identity["user"], identity["group"])
        self._home.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def dsn(self, dbname: str = "postgres", **parameters: Any) -> str:
        """A libpq DSN, over TCP and with the superuser unless ``parameters`` say otherwise."""
        defaults = {"host": "127.0.0.1", "port": self.port, "user": SUPERUSER, "password": PASSWORD}
        return make_conninfo("", **{**defaults, "dbname": dbname, **parameters})

    def connect(self, dbname: str = "postgres", **parameters: Any) -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        return psycopg.connect(self.dsn(dbname, **parameters), autocommit=True)

    @property
    def running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server has logged."""
        path = self._home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def add_file(self, name: str, text: str) -> None:
        """Write a file into the data folder of a stopped server."""
        path = self._data / name
        path.write_text(text)
        path.chmod(0o600)
        if identity := run_as():
            os.chown(path, identity["user"], identity["group"])

    def standby(self, name: str, settings: dict[str, str]) -> PostgresServer:
        """A standby of this server, which is at rest: to be started when this one runs. ``name`` is its physical slot's too."""
        follows = {"primary_conninfo": self.dsn(application_name=name), "primary_slot_name": name}
        made = PostgresServer(self.version, {**self.settings, **follows, **settings}, self._hba, data=self._data)
        made.add_file("standby.signal", "")
        return made

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start and wait until it takes connections; on the port it had before, if any."""
        for _ in range(10):
            if not self.port or not self.running:
                self.port = self.port or free_port()
                self._launch()
            if self._wait(seconds):
                return
            if "could not bind" not in self.log[-3000:]:
                break
            self.port = 0
        raise RuntimeError(f"PostgreSQL {self.version} did not start: {self.log[-3000:]}")

    def _launch(self) -> None:
        settings = {**self.settings, "port": str(self.port), "unix_socket_directories": str(self._home)}
        (self._data / "pg_hba.conf").write_text(self._hba)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._home / "log").open("ab") as log:
            self._process = _starter.submit(
                subprocess.Popen,
                [self._programs / "postgres", "-D", self._data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, **self._libraries},
                preexec_fn=_die_with_parent,
                **run_as(),
            ).result()

    def _wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                self.connect(connect_timeout=5).close()
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        """Fast shutdown: sessions are cut, everything is checkpointed."""
        self._signal(signal.SIGINT)

    def restart(self, **settings: str) -> None:
        """Stop and start, from now on with these settings."""
        self.stop()
        self.settings |= settings
        self.start()

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its children: the next start is a crash recovery."""
        if self._process is None or not self.running:
            return
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self._process.wait(START_SECONDS)
        _wait_gone([int(each) for each in children])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)

    def remove(self) -> None:
        """Stop and delete everything."""
        self._signal(signal.SIGQUIT)
        shutil.rmtree(self._home, ignore_errors=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


def _wait_gone(pids: list[int]) -> None:
    """Wait until children of a killed postmaster have let go of its shared memory."""
    deadline = time.monotonic() + START_SECONDS
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {pids} do not end")
        time.sleep(0.01)


def free_port() -> int:
    """A free TCP port on loopback, above 15000 and below the range the kernel gives to outgoing connections."""
    for _ in range(1000):
        port = random.randrange(15001, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 15001 and 32000")
