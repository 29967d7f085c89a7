"""The password of the pipe's role: where it is, or a new one, which only the file that the pipe reads ever holds.

The server gets a SCRAM verifier of it, so that it is in no log of the server's. It is shown when that is asked for, and never otherwise.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import conninfo

from penstock.errors import ConfigError
from penstock.language import phrase
from penstock.setup.step import Back

if TYPE_CHECKING:
    from penstock.config import Source
    from penstock.postgres.connection import Connection

BYTES = 24


@dataclass(frozen=True, slots=True)
class Password:
    """Where the password of a role comes from. ``lack`` says why there can be none; ``path`` is the file that setup makes."""

    known: str = ""
    new: str = field(default="", repr=False)  # one that is not in use yet
    path: str = ""
    lack: str = ""
    variable: str = ""  # that is to hold a password that is made and shown

    @classmethod
    def of(cls, source: Source, *, shown: bool) -> Password:
        """What the pipe says of its password. Raises ConfigError for a file that cannot be read."""
        secret, new = source.password, secrets.token_urlsafe(BYTES)
        if secret is None:
            given = conninfo.conninfo_to_dict(source.dsn)
            known = str(given.get("password") or "")
            return cls(known=known, lack="" if known or given.get("sslcert") else phrase("source.password is not set"))
        if secret.file:
            path = Path(secret.file).expanduser()
            return cls(known=secret.read()) if path.exists() else cls(new=new, path=str(path.absolute()))
        if secret.env in os.environ:
            return cls(known=secret.read())
        return cls(
            new=new,
            variable=secret.env,
            lack="" if shown else phrase("the environment variable {name} is not set", name=secret.env),
        )

    @property
    def back(self) -> tuple[Back, ...]:
        """How the file is taken back: with what was written into it, and not another that somebody makes."""
        return (Back("file", self.path, {"sha256": _digest(self.new)}),) if self.path else ()

    def read_or_make(self) -> str:
        """The password; one that is made is in its file before the server knows it. Empty for a role without one."""
        if self.known or not self.new:
            return self.known
        if self.path:
            try:
                handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise ConfigError(
                    phrase(
                        "the password's file {path} cannot be made: {reason}", path=self.path, reason=error.strerror
                    ),
                    hint=phrase("Let source.password name a file in a folder that exists and can be written."),
                ) from None
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.new + "\n")
                file.flush()
                os.fsync(file.fileno())
        return self.new


def verifier(connection: Connection, role: str, password: str) -> str:
    """What the server is told instead of the password."""
    made = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    return made.decode()


def remove_file(back: Back) -> None:
    """Remove a password's file, if it has what setup wrote into it."""
    path = Path(back.what)
    if path.is_file() and _digest(path.read_text(encoding="utf-8").rstrip("\r\n")) == back.arguments["sha256"]:
        path.unlink()


def _digest(secret: str) -> str:
    """What tells a password of so many random bytes from others, and does not give it away."""
    return hashlib.sha256(secret.encode()).hexdigest()
