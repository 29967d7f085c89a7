"""What the tests of ways to a source share: how a tunnel is defined, and what is expected of a way."""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from tests.fix_ssh import PASSWORD, USER
from tests.fix_tls import SECRET

from penstock.config import Source, Ssh
from penstock.errors import PenstockError
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_ssh import JumpServer
    from tests.servers.postgres import PostgresServer

    from penstock.postgres.connection import Connection


def to(jump: JumpServer, key: Path | None = None, **changed: Any) -> Ssh:
    """The definition of a tunnel through the jump server."""
    given = {"host": "127.0.0.1", "port": jump.port, "user": USER, "known_host_key": jump.line, **changed}
    return Ssh(**({"key": str(key)} if key else {}), **given)


def through(ssh: Ssh, postgres: PostgresServer, **dsn: Any) -> Connector:
    return Connector(Source(dsn=postgres.dsn(**dsn), ssh=ssh), "penstock test")


def asserted(way: Connector | Source) -> None:
    """Every kind of connection gets through."""
    for connect in kinds(way):
        with contextlib.closing(connect()) as connection:
            assert connection.execute("select 1").fetchone() in ((1,), ("1",))


def refused(way: Connector | Source, kind: type[PenstockError], message: str, hint: str) -> None:
    """No kind of connection gets through; the words are the same, and hold no secret."""
    for connect in kinds(way):
        with pytest.raises(PenstockError) as caught:
            connect()
        assert message in caught.value.message
        assert hint in caught.value.hint, caught.value.hint
        assert type(caught.value) is kind, caught.value.message
        shown = "".join(traceback.format_exception(caught.value))
        assert not [each for each in (PASSWORD, SECRET, "X-Amz-Signature") if each in shown]


def kinds(way: Connector | Source) -> list[Callable[[], Connection]]:
    """What a pipe connects for: queries, the copy, and the stream."""

    def made() -> Connector:
        return Connector(way, "penstock test") if isinstance(way, Source) else way

    return [lambda: made().connect(), lambda: made().connect(copying=True), lambda: made().replication({})]
