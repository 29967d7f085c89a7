"""Statements that wait for other people's transactions: run so that somebody can be told whom they wait for, and ended when asked."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from penstock.errors import SlotError, SourceError, SourceUnavailableError
from penstock.postgres import QUERIES
from penstock.postgres.connection import sibling, translated
from penstock.postgres.silence import meanwhile
from penstock.postgres.wire import answered, finish, result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres.connection import Connection

CANCEL_SECONDS = 10.0
WATCH_SECONDS = 1.0  # how often to look whom a statement waits for
LOCK_TIMEOUT = "5s"  # whoever waits for a lock holds up others who ask for it: they have their turn before the next try


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a long wait is told, and when it is to end."""

    report: Callable[[str], None] = lambda _: None
    stopped: Callable[[], bool] = lambda: False


ALONE = Waiting()  # nobody is told, and nobody ends it


class LockedError(SourceUnavailableError):
    """Others kept something locked for longer than LOCK_TIMEOUT."""


def watched(
    connection: Connection,
    statement: bytes,
    doing: str,
    *,
    report: Callable[[str], None],
    stopped: Callable[[], bool],
    other: Callable[[], Connection] | None = None,
) -> pq.abc.PGresult:
    """Run a statement that may wait for other transactions; ``report`` is told whom it waits for.

    ``other`` makes the connection that finds out, where a second one like the first will not do. What ``report`` raises ends the
    statement, and so does ``stopped``, with SlotError.
    """
    pgconn = connection.pgconn
    with contextlib.ExitStack() as opened:
        watcher: Connection | None = None
        said = ""
        with translated(doing):
            pgconn.send_query(statement)
            try:
                while not answered(pgconn, WATCH_SECONDS):
                    if stopped():
                        raise SlotError(f"{doing}: given up while it waited{said}", hint="Start the pipe again.")
                    watcher = watcher or opened.enter_context(other() if other else sibling(connection))
                    if waits := waits_for(watcher, pgconn.backend_pid):
                        said = f" for {', '.join(waits)}"
                        report(f"{doing} waits{said}")
            except BaseException:
                _cancel(connection)
                raise
            try:
                return result(pgconn, pq.ExecStatus.TUPLES_OK)
            finally:
                finish(pgconn)


def _cancel(connection: Connection) -> None:
    """End the statement, so that no half-made slot stays behind, and leave the connection usable where that is possible."""
    with contextlib.suppress(psycopg.Error):
        connection.cancel_safe(timeout=CANCEL_SECONDS)  # PQcancel would block every thread, the tunnel's too
        while not answered(connection.pgconn, WATCH_SECONDS):
            pass
        finish(connection.pgconn)


def waits_for(connection: Connection, pid: int) -> list[str]:
    """The sessions and prepared transactions that the session ``pid`` waits for, in words."""
    with translated("asking whom a session waits for"):
        return [text for (text,) in connection.execute(QUERIES["waits_for"], {"pid": pid})]


@contextlib.contextmanager
def told(connection: Connection, doing: str, waiting: Waiting) -> Iterator[None]:
    """Statements within may wait for others' locks: told is whom for. They are ended, with SourceUnavailableError, when asked.

    Raises LockedError when a lock was waited for longer than the session's ``lock_timeout``.
    """
    with contextlib.ExitStack() as opened:
        watch = _Watch(connection, doing, waiting, opened)
        try:
            with meanwhile(connection, watch.look):
                yield
        except psycopg.errors.LockNotAvailable:
            raise LockedError(
                f"{watch.said or f'{doing} waits for a lock that another session has'}, and was given up",
                hint="Try again when that session has ended; or end it: select pg_terminate_backend(PID); rollback prepared '…';",
            ) from None


@contextlib.contextmanager
def limited(connection: Connection, doing: str, waiting: Waiting) -> Iterator[None]:
    """The same, and a lock is waited for no longer than LOCK_TIMEOUT. Begins and ends outside of transactions."""
    connection.execute(f"set lock_timeout = '{LOCK_TIMEOUT}'")
    try:
        with told(connection, doing, waiting):
            yield
    finally:
        if not connection.closed:
            connection.execute("reset lock_timeout")


class _Watch:
    """Looks whom a session waits for, over a connection that it makes when there is something to look at."""

    def __init__(self, connection: Connection, doing: str, waiting: Waiting, opened: contextlib.ExitStack) -> None:
        self._connection = connection
        self._doing = doing
        self._waiting = waiting
        self._opened = opened
        self._watcher: Connection | None = None
        self._next = 0.0
        self.said = ""

    def look(self, seconds: float) -> None:
        """A statement has waited for so long."""
        if self._waiting.stopped():
            _cancel(self._connection)
            raise SourceUnavailableError(f"{self._doing}: given up while it waited", hint="Start the pipe again.")
        now = time.monotonic()
        if seconds < WATCH_SECONDS or now < self._next:
            return
        self._next = now + WATCH_SECONDS
        with contextlib.suppress(SourceError):  # the waiting itself may go well
            for lock, holders in self._locks():
                self.said = f"{self._doing} waits for the lock of {lock}: {holders}"
                self._waiting.report(self.said)

    def _locks(self) -> list[tuple[str, str]]:
        if self._watcher is None:
            self._watcher = self._opened.enter_context(sibling(self._connection))
        with translated("asking whom a session waits for"):
            pid = self._connection.pgconn.backend_pid
            return self._watcher.execute(QUERIES["awaited_lock"], {"pid": pid}).fetchall()


def locked(connection: Connection, relations: list[int]) -> set[int]:
    """Those relations that others have locked, or are about to lock, against DDL, VACUUM and ALTER PUBLICATION alike."""
    with translated("asking which tables are locked"):
        return {oid for (oid,) in connection.execute(QUERIES["locked"], {"oids": relations})}
