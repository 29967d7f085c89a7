"""Programs of Debian's packages, fetched and unpacked, not installed: apt-get needs no root for that, only lists of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.servers.postgres_binaries import folder, locked, run


def unpacked(name: str, *packages: str) -> Path:
    """The folder that holds the packages' files; done once. Raises RuntimeError where there is no apt-get, or other packages."""
    home = folder() / f"debian-{name}"
    with locked(home.with_name(home.name + ".lock")):
        if not home.exists():
            with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
                _fetch(Path(scratch), packages)
                Path(scratch, "tree").rename(home)
    return home


def _fetch(scratch: Path, packages: tuple[str, ...]) -> None:
    for each in ("lists/partial", "cache/archives/partial", "debs", "tree"):
        (scratch / each).mkdir(parents=True)
    places = {"Dir::State::lists": scratch / "lists", "Dir::Cache": scratch / "cache"}
    settings = [*(f"{name}={place}" for name, place in places.items()), "Debug::NoLocking=1", "APT::Sandbox::User=root"]
    options = [word for each in settings for word in ("-o", each)]
    run(["apt-get", *options, "-qq", "update"], cwd=scratch)
    run(["apt-get", *options, "-qq", "download", *packages], cwd=scratch / "debs")
    for package in sorted((scratch / "debs").glob("*.deb")):
        run(["dpkg-deb", "-x", str(package), str(scratch / "tree")])
    run(["chmod", "-R", "a+rX", str(scratch / "tree")])
