"""A server that is silent while it owes an answer: whether it is at work, or the link swallows everything.

The kernel notices a peer that is gone (``connection.NETWORK``), and not one behind a proxy, a tunnel or a balancer that lives on. A
statement may take hours, so no time is too long by itself: the server is asked over another connection whether the session works.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from psycopg import pq

SILENT_SECONDS = 10.0  # after so long it is asked, and again
AGAIN_SECONDS = 4.0  # so long after it was not at work; its answer may have been on the way
ASKING_SECONDS = 4  # so long may that take, and so long is what asks patient itself
STRIKES = 2

_AT_WORK = """
select a.state = 'active' and a.wait_event_type is distinct from 'Client'
from pg_catalog.pg_stat_activity a where a.pid = %s and a.usename = session_user"""


class Silence:
    """How long the server of a connection has said nothing."""

    def __init__(self, pgconn: pq.abc.PGconn, look: Callable[[float], None] | None = None) -> None:
        """``look`` is called whenever something is endured, with the seconds of silence."""
        self._pgconn = pgconn
        self._look = look
        self.heard()

    def heard(self) -> None:
        """Something came."""
        self._began = time.monotonic()
        self._ask_at = self._began + SILENT_SECONDS
        self._strikes = 0

    def endure(self) -> None:
        """Nothing has come. Raises psycopg.OperationalError when nothing will; the connection is closed then."""
        now = time.monotonic()
        if self._look is not None:
            self._look(now - self._began)
        if now < self._ask_at:
            return
        at_work = self._is_at_work()
        self._strikes = 0 if at_work else self._strikes + 1
        if self._strikes >= STRIKES:
            self._pgconn.finish()
            raise psycopg.OperationalError(
                f"the server has been silent for {now - self._began:.0f} s, and does not work for this session"
            )
        self._ask_at = time.monotonic() + (SILENT_SECONDS if at_work else AGAIN_SECONDS)

    def _is_at_work(self) -> bool:
        """A server that answers, and takes no more connections, has the benefit of the doubt."""
        used: dict[str, Any] = {each.keyword.decode(): each.val.decode() for each in self._pgconn.info if each.val}
        used["connect_timeout"] = ASKING_SECONDS
        used.pop("replication", None)
        try:
            with contextlib.closing(_Asking.connect("", autocommit=True, **used)) as other:
                return other.execute(_AT_WORK, (self._pgconn.backend_pid,)).fetchone() == (True,)
        except psycopg.OperationalError as error:
            return bool(error.sqlstate)


class Attentive(psycopg.Connection[Any]):
    """A connection whose statements wait as long as the server works, and no longer."""

    meanwhile: Callable[[float], None] | None = None

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """As psycopg's own."""
        return super().wait(_listening(gen, Silence(self.pgconn, self.meanwhile)), *arguments, **options)


@contextlib.contextmanager
def meanwhile(connection: psycopg.Connection[Any], look: Callable[[float], None]) -> Iterator[None]:
    """Within, ``look`` is called about ten times a second while a statement waits, with the seconds for which nothing has come.

    What it raises ends the waiting, but not the statement.
    """
    if not isinstance(connection, Attentive):
        raise TypeError("not a connection of a Connector")
    before, connection.meanwhile = connection.meanwhile, look
    try:
        yield
    finally:
        connection.meanwhile = before


class _Asking(psycopg.Connection[Any]):
    """One that is not patient at all."""

    def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        return super().wait(_listening(gen, _Deadline(self.pgconn)), *arguments, **options)


class _Deadline(Silence):
    def endure(self) -> None:
        if time.monotonic() - self._began > ASKING_SECONDS:
            raise psycopg.OperationalError("no answer")


def _listening(gen: Generator[Any, int, Any], silence: Silence) -> Generator[Any, int, Any]:
    """psycopg's generator; it is sent what the socket is ready for, 0 for nothing."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                silence.heard()
            else:
                silence.endure()
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value
