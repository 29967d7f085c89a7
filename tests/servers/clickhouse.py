"""One running ClickHouse on loopback, HTTP and native TCP, with a data folder of its own: start, stop, kill, query.

The server is a shared library (``clickhouse_engines.py``) in a process of its own (``clickhouse_process.py``). Users come from a
users.xml. The newer ones are clickhouse-local that listens: no SQL CREATE USER, no ON CLUSTER, no Replicated tables.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tests.servers.clickhouse_engines import ENGINES, NEWEST, SERVER_MAIN

PASSWORD = "penstock"
START_SECONDS = 60

_USER = """\
<{name}><password>{password}</password><networks><ip>::/0</ip></networks>
<profile>{profile}</profile><quota>default</quota>{grants}</{name}>
"""
_USERS = """\
<clickhouse>
<profiles><default>{settings}</default><readonly><readonly>1</readonly></readonly>
<abroad><session_timezone>Europe/Berlin</session_timezone></abroad></profiles><quotas><default/></quotas>
<users>
<default><no_password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>
{users}</users>
</clickhouse>
"""
_CONFIG = """\
<clickhouse>
<users_config>{home}/users.xml</users_config>
<mark_cache_size>67108864</mark_cache_size>
<logger><level>none</level></logger>
{extra}</clickhouse>
"""
_LISTEN = (
    "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT sleepEachRow(1) FROM numbers(1000000000)"
    " SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0 FORMAT Null"
)


class ClickHouseServer:
    """A ClickHouse server, running after ``start()``.

    Users: ``default`` and ``penstock`` may do everything, ``limited`` what ``grants`` says, ``reader`` is read-only, ``abroad`` sees
    times in the time zone of Berlin; all but ``default`` have PASSWORD. ``profile`` holds settings of the default profile, ``config``
    more of the server's own XML, ``engine`` is the release.
    """

    def __init__(
        self,
        *,
        data: Path | None = None,
        profile: dict[str, str] | None = None,
        config: str = "",
        grants: str = "GRANT SELECT ON *.*",
        engine: str = NEWEST,
    ) -> None:
        self._engine = ENGINES[engine]
        self._home = Path(tempfile.mkdtemp(prefix="clickhouse-"))
        self.data = data or self._home / "data"
        self.http_port = 0
        self.tcp_port = 0
        self._process: subprocess.Popen[bytes] | None = None
        settings = "".join(f"<{name}>{value}</{name}>" for name, value in (profile or {}).items())
        users = {
            "penstock": ("default", ""),
            "limited": ("default", f"<grants><query>{grants}</query></grants>"),
            "reader": ("readonly", ""),
            "abroad": ("abroad", ""),
        }
        (self._home / "users.xml").write_text(
            _USERS.format(
                settings=settings,
                users="".join(
                    _USER.format(name=name, password=PASSWORD, profile=kind, grants=grants)
                    for name, (kind, grants) in users.items()
                ),
            )
        )
        (self._home / "config.xml").write_text(_CONFIG.format(home=self._home, extra=config))

    def __enter__(self) -> ClickHouseServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def dsn(self, user: str = "default") -> str:
        """The destination's DSN, without a password."""
        return f"clickhouse://{user}@127.0.0.1:{self.http_port}"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start on the ports of the last run, or on free ones, and wait until it answers."""
        self.http_port = self.http_port or _free_port()
        self.tcp_port = self.tcp_port or _free_port()
        self.data.mkdir(parents=True, exist_ok=True)
        errors = (self._home / "stderr").open("wb")
        with errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("clickhouse_process.py")),
                    str(self._engine.home() / self._engine.file),
                    self._engine.main,
                    *self._arguments(),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=self._home,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"ClickHouse did not start: {(self._home / 'stderr').read_text()[-2000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)

    def _arguments(self) -> list[str]:
        places = [
            f"--path={self.data}",
            f"--http_port={self.http_port}",
            f"--tcp_port={self.tcp_port}",
            "--listen_host=127.0.0.1",
        ]
        config = f"--config-file={self._home}/config.xml"
        if self._engine.main == SERVER_MAIN:
            return ["clickhouse-server", config, "--", *places]
        return ["clickhouse", config, *places, f"--query={_LISTEN}"]

    def _answers(self) -> bool:
        try:
            return self.query("select 1") == "1\n"
        except OSError:
            return False

    def query(self, sql: str, *, user: str = "default", **parameters: str) -> str:
        """Run one statement over HTTP; RuntimeError with the server's message when it fails."""
        given = {"user": user, "password": "" if user == "default" else PASSWORD, **parameters}
        url = f"http://127.0.0.1:{self.http_port}/?{urllib.parse.urlencode(given)}"
        try:
            with urllib.request.urlopen(url, data=sql.encode(), timeout=60) as answer:
                return answer.read().decode(errors="surrogateescape")
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode(errors="replace")) from None

    def stop(self) -> None:
        """End the process in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the process from answering, with its connections open; ``thaw()`` lets it go on."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.running:
            os.kill(self._process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGCONT)
        self._signal(number)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._process = None

    def remove(self) -> None:
        """End the process and remove its folder."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)


def _free_port() -> int:
    """A port above 15000 that nothing listens on."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port > 15000:
            return port
