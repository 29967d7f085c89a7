"""TLS for tests: certificates made by the openssl program, and servers that ask for them."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.servers.postgres import HBA, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "geheim-%41"  # of every role here
ROLES = ("tls", "plain", "trusted", "hashed", "carded", "certified")
TLS_HBA = """\
local all,replication all trust
host all,replication postgres 127.0.0.1/32 scram-sha-256
hostnossl all plain 127.0.0.1/32 scram-sha-256
hostssl all trusted 127.0.0.1/32 trust
hostssl all hashed 127.0.0.1/32 md5
hostssl all carded 127.0.0.1/32 scram-sha-256 clientcert=verify-ca
hostssl all certified 127.0.0.1/32 cert
hostssl all,replication all 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of its own in ``folder``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        folder.mkdir()
        self.root = folder / "root.crt"
        self._key = folder / "root.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-keyout", self._key, "-out", self.root),
        )

    def issue(self, name: str, *alternatives: str, days: int = 2) -> Certificate:
        """A certificate for ``name``, with subject alternative names such as ``DNS:localhost``. 0 ``days``: it expires at once."""
        made = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName = {', '.join(alternatives or [f'DNS:{name}'])}\n")
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", made.key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.root, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", days, "-extfile", extensions, "-out", made.certificate),
        )
        made.key.chmod(0o600)
        return made


def _openssl(*words: object) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {words[0]} failed: {done.stderr[-2000:]}")


@dataclass(frozen=True)
class Tls:
    """A server that takes TLS only, one whose certificate has expired, and one without TLS."""

    folder: Path
    server: PostgresServer
    expired: PostgresServer
    plain: PostgresServer
    certificates: dict[str, Certificate]

    @property
    def root(self) -> str:
        return str(self.folder / "ours" / "root.crt")

    def mine(self, name: str, key: str = "") -> dict[str, str]:
        """The DSN's words for a client certificate."""
        return {
            "sslcert": str(self.certificates[name].certificate),
            "sslkey": str(self.certificates[key or name].key),
            "sslmode": "require",
        }


@pytest.fixture(scope="module")
def tls(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    folder = tmp_path_factory.mktemp("tls")
    ours, foreign = Authority(folder / "ours", "Penstock's tests"), Authority(folder / "foreign", "Somebody else")
    names = ("DNS:localhost", "IP:127.0.0.1")
    certificates = {
        "certified": ours.issue("certified"),
        "somebody": ours.issue("somebody"),
        "expired": ours.issue("expired", days=0),
        "foreign": foreign.issue("certified"),
    }
    with contextlib.ExitStack() as running:

        def start(certificate: Certificate | None) -> PostgresServer:
            settings = {"ssl": "on", "ssl_ca_file": "root.crt"} if certificate else {}
            server = PostgresServer(postgres.version, settings, TLS_HBA if certificate else HBA)
            if certificate:
                server.add_file("server.crt", certificate.certificate.read_text())
                server.add_file("server.key", certificate.key.read_text())
                server.add_file("root.crt", ours.root.read_text())
            return running.enter_context(server)

        served = start(ours.issue("localhost", *names)), start(ours.issue("late", *names, days=0)), start(None)
        for server in served:
            with server.connect() as connection:
                for role in ROLES:
                    connection.execute(f"set password_encryption = '{'md5' if role == 'hashed' else 'scram-sha-256'}'")
                    connection.execute(f"create role {role} login superuser password '{SECRET}'")
        yield Tls(folder, *served, certificates)
