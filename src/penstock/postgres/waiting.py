"""Statements that wait for other people's transactions: run so that somebody can be told whom they wait for, and ended when asked."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from penstock.errors import SlotError
from penstock.postgres import QUERIES
from penstock.postgres.connection import sibling, translated
from penstock.postgres.wire import answered, finish, result

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.postgres.connection import Connection

CANCEL_SECONDS = 10.0
WATCH_SECONDS = 1.0  # how often to look whom a statement waits for


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
