"""Where the destination is: its DSN read into what the driver takes. Passwords come from the configuration only."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.config import Destination, Ssh

EXAMPLE = 'Write dsn = "chdb:///path/of/a/folder" or "clickhouse://user@host:8443?secure=true".'
_SECURE = {"clickhouse": False, "http": False, "clickhouses": True, "https": True}
_YES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_TEXTS = ("ca_cert", "client_cert", "client_cert_key", "server_host_name")
_NUMBERS = {"connect_timeout": 10, "send_receive_timeout": 300}
"""Seconds. The second one is how long a statement may show no progress, and one insert shows none until it is done."""


@dataclass(frozen=True, slots=True)
class Address:
    """``path`` of an embedded database, or ``host`` and the rest of a server."""

    path: Path | None = None
    host: str = ""
    port: int = 0
    user: str = "default"
    password: str = field(default="", repr=False)
    secure: bool = False
    verify: bool = True
    timeouts: dict[str, int] = field(default_factory=dict)
    tls: dict[str, str] = field(default_factory=dict)
    ssh: Ssh | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"chDB at {self.path}" if self.path else f"ClickHouse at {self.host}:{self.port}"

    @property
    def on_loopback(self) -> bool:
        """Whether data never leaves the machine, so that compressing it is a waste."""
        if self.host == "localhost" or self.ssh:
            return not self.ssh
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read(destination: Destination) -> Address:
    """Read the destination's DSN and its password. Raises ConfigError, which shows no password."""
    parts = urlsplit(destination.dsn)
    if parts.scheme == "chdb":
        if parts.netloc or parts.query or len(parts.path) < 2:
            raise ConfigError("destination.dsn: an embedded database is given by its folder alone", hint=EXAMPLE)
        if destination.ssh:
            raise ConfigError("destination.ssh: an embedded database is in this process", hint="Leave it out.")
        return Address(path=Path(unquote(parts.path)))
    if parts.scheme not in _SECURE or not parts.hostname:
        raise ConfigError("destination.dsn names neither a ClickHouse server nor a chDB folder", hint=EXAMPLE)
    if parts.password is not None:
        raise ConfigError(
            "destination.dsn holds a password", hint='Move it to password = { env = "…" } or { file = "…" }.'
        )
    if parts.path not in ("", "/"):
        raise ConfigError(
            "destination.dsn names a database",
            hint='Write database = "…" in [destination], and take it out of the dsn.',
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    secure = _flag(options, "secure", default=_SECURE[parts.scheme])
    verify = _flag(options, "verify", default=True)
    timeouts = {name: _seconds(options, name, default) for name, default in _NUMBERS.items()}
    tls = {name: options.pop(name) for name in _TEXTS if name in options}
    if options:
        known = ", ".join(("secure", "verify", *_NUMBERS, *_TEXTS))
        raise ConfigError(f"destination.dsn: unknown option {min(options)}", hint=f"Known are {known}.")
    return Address(
        host=parts.hostname,
        port=_port(destination.dsn) or (8443 if secure else 8123),
        user=unquote(parts.username or "default"),
        password=destination.password.read() if destination.password else "",
        secure=secure,
        verify=verify,
        timeouts=timeouts,
        tls=tls,
        ssh=destination.ssh,
    )


def _port(dsn: str) -> int | None:
    try:
        return urlsplit(dsn).port
    except ValueError:
        raise ConfigError("destination.dsn: the port is not a number up to 65535", hint=EXAMPLE) from None


def _flag(options: dict[str, str], name: str, *, default: bool) -> bool:
    text = options.pop(name, str(default)).lower()
    if text not in _YES:
        raise ConfigError(f"destination.dsn: {name} is neither true nor false", hint=f"Write {name}=true.")
    return _YES[text]


def _seconds(options: dict[str, str], name: str, default: int) -> int:
    text = options.pop(name, str(default))
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(f"destination.dsn: {name} is not a whole number of seconds", hint=f"Write {name}={default}.")
    return int(text)
