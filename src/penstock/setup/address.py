"""The address that a firewall is to let in: as it was given, or as this machine sees it by itself."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from penstock.errors import ConfigError
from penstock.language import phrase

if TYPE_CHECKING:
    from penstock.setup.asked import Asked

PORT = 5432


def let_in(asked: Asked) -> str:
    """The network that the operator gave, or this machine's address where the server's is private; else empty. Raises ConfigError."""
    given = asked.choices.get("address", "")
    if not given:
        return _own(asked.host)
    try:
        return str(ipaddress.ip_network(given))
    except ValueError:
        raise ConfigError(
            phrase("--with address={address} is not an address", address=given),
            hint=phrase("Write it as 203.0.113.7/32 or 203.0.113.0/28."),
        ) from None


def _own(host: str) -> str:
    """By the route to a private address, which nobody translates on the way; nothing is sent."""
    try:
        family, _, _, _, target = socket.getaddrinfo(host, PORT, type=socket.SOCK_DGRAM)[0]
        if not ipaddress.ip_address(target[0]).is_private:
            return ""
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(ipaddress.ip_network(probe.getsockname()[0]))
    except (OSError, ValueError):
        return ""
