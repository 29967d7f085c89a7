"""A connection's way through the SSH tunnel of its source.

To libpq the server's name stays what the DSN says, so that ``sslmode=verify-full`` and channel binding hold end to end; only the
address is the tunnel's. The password file is asked for the tunnel's port: a line there needs ``*`` as its port.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError, SourceRefusedError, SourceUnavailableError
from penstock.language import joined
from penstock.postgres import hosts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.config import Ssh
    from penstock.ssh import TunnelError


class Passage:
    """For one attempt to connect to one host. ``doing`` says what is attempted."""

    def __init__(self, ssh: Ssh, parameters: Mapping[str, Any], doing: str) -> None:
        """Raises ConfigError where the DSN does not say what the jump server is to connect to."""
        from penstock import tunnel  # asyncssh takes a while to load, and most pipes have no tunnel

        self._tunnel = tunnel.through(ssh)
        self._target = hosts.address(parameters)
        self._doing = doing
        self._began = time.monotonic()

    def open(self) -> dict[str, Any]:
        """What libpq is to be told instead of the server's own address. Raises as ``Connector.connect``."""
        from penstock.ssh import TunnelError
        from penstock.tunnel import LOOPBACK

        try:
            return {"hostaddr": LOOPBACK, "port": self._tunnel.port_to(*self._target)}
        except TunnelError as error:
            raise self._told(error) from None

    def trouble(self) -> PenstockError | None:
        """Why the attempt failed, if the tunnel knows more than libpq."""
        found = self._tunnel.trouble(*self._target, since=self._began)
        return found if found is None or isinstance(found, PenstockError) else self._told(found)

    def _told(self, error: TunnelError) -> PenstockError:
        kind = SourceRefusedError if error.lasting else SourceUnavailableError
        return kind(joined(self._doing, error.message, between=": "), hint=error.hint)
