"""One running sshd of OpenSSH on loopback, from Debian's package, which is fetched and unpacked, not installed.

Root's sshd wants a user and a folder of its own on the machine, so root runs it as ``nobody``, whose account sshd would call
locked; anybody else as themselves. nss_wrapper gives whoever runs it the name USER.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from tests.servers.debian import unpacked
from tests.servers.postgres import free_port
from tests.servers.postgres_binaries import run, run_as

PACKAGES = ("openssh-server", "libwrap0", "libnsl2", "libtirpc3", "libnss-wrapper")
USER = "jumper"
START_SECONDS = 20
CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {home}/host_key
PidFile none
AuthorizedKeysFile {home}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowTcpForwarding yes
"""


class Sshd:
    """Lets USER in with the key whose public half is in ``authorized``."""

    def __init__(self, authorized: str) -> None:
        self.port = free_port()
        self._tree = unpacked("openssh", *PACKAGES)
        self._home = Path(tempfile.mkdtemp(prefix="sshd-"))
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._home / "host_key")])
        (self._home / "authorized_keys").write_text(authorized)
        identity = run_as() or {"user": os.getuid(), "group": os.getgid()}
        (self._home / "passwd").write_text(f"{USER}:x:{identity['user']}:{identity['group']}::{self._home}:/bin/sh\n")
        (self._home / "group").write_text(f"{USER}:x:{identity['group']}:\n")
        (self._home / "config").write_text(CONFIG.format(port=self.port, home=self._home))
        self.line = " ".join((self._home / "host_key.pub").read_text().split()[:2])
        self._give_away()
        self._process: subprocess.Popen[bytes] | None = None

    def _give_away(self) -> None:
        if identity := run_as():
            for each in (self._home, *self._home.iterdir()):
                os.chown(each, identity["user"], identity["group"])

    def __enter__(self) -> Sshd:
        with (self._home / "log").open("ab") as log:
            command = [self._tree / "usr/sbin/sshd", "-D", "-e", "-f", self._home / "config"]
            libraries = self._tree / "usr/lib/x86_64-linux-gnu"
            environment = {
                "LD_LIBRARY_PATH": str(libraries),
                "LD_PRELOAD": str(libraries / "libnss_wrapper.so"),
                "NSS_WRAPPER_PASSWD": str(self._home / "passwd"),
                "NSS_WRAPPER_GROUP": str(self._home / "group"),
            }
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=log, cwd="/", env=environment, **run_as()
            )
        deadline = time.monotonic() + START_SECONDS
        while "Server listening" not in self.log:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start: {self.log}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def log(self) -> str:
        """What it has logged."""
        path = self._home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def cut(self) -> None:
        """End the sessions; new ones are taken."""
        if self._process is not None:
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
