"""Timelines: PostgreSQL's own account of failovers and restores (PostgreSQL manual, 25.3.6; Streaming Replication Protocol).

Each promotion begins a new timeline, and the server keeps a history of those before: which they were, and where each ended. Two
histories tell up to where two servers have the same WAL.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from penstock.lsn import Lsn
from penstock.postgres import QUERIES
from penstock.postgres.connection import sibling, translated

if TYPE_CHECKING:
    from penstock.postgres.connection import Connection

FOR_EVER = Lsn((1 << 64) - 1)


@dataclass(frozen=True, slots=True)
class Timeline:
    """A timeline and where those before it ended. ``before`` is empty too where the history is not known."""

    number: int
    before: tuple[tuple[int, Lsn], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Timeline:
        """Read what ``str`` gives."""
        *before, number = text.split()
        pairs = (each.split("@") for each in before)
        return cls(int(number), tuple((int(each), Lsn.parse(end)) for each, end in pairs))

    def __str__(self) -> str:
        return " ".join([*(f"{number}@{end}" for number, end in self.before), str(self.number)])

    def parts_from(self, other: Timeline) -> Lsn:
        """Up to where both have the same WAL; ``FOR_EVER`` where they are one."""
        same = Lsn(0)
        for ours, theirs in zip_longest(self._reigns, other._reigns):
            if ours is None or theirs is None or ours[0] != theirs[0]:
                return same
            same = min(ours[1], theirs[1])
            if ours[1] != theirs[1]:
                return same
        return same

    def is_behind(self, other: Timeline) -> bool:
        """Whether the other has left this timeline already: it is the one of an old primary."""
        return self.number in (number for number, _ in other.before)

    @property
    def _reigns(self) -> tuple[tuple[int, Lsn], ...]:
        return (*self.before, (self.number, FOR_EVER))


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Which database system it is, and on which timeline (postgres.md 5)."""

    system_identifier: str
    timeline: int
    in_recovery: bool
    database: str
    server: str  # which of those with this system it is, until it restarts


_REFUSED = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.UndefinedFunction,
)
_one_at_a_time = threading.Lock()


def system(connection: Connection) -> SystemIdentity:
    """Ask a connection that is in no transaction. Raises SourceError.

    The functions for it are PostgreSQL's own, and everybody may call them there; a provider may think otherwise (Aurora refuses others
    that are about WAL). Then the replication protocol says the same, over a connection that takes a sender for a moment.
    """
    with translated("identifying the source"):
        try:
            row = connection.execute(QUERIES["system"]).fetchone()
        except _REFUSED:
            return _identified(connection)
    assert row is not None  # noqa: S101  (the query has no FROM that could be empty)
    return SystemIdentity(*row)


def _identified(connection: Connection) -> SystemIdentity:
    (place,) = connection.execute(QUERIES["place"]).fetchall()
    with contextlib.ExitStack() as stack:
        if connection.cursor_factory is not psycopg.ClientCursor:
            stack.enter_context(_one_at_a_time)  # senders are few
            connection = stack.enter_context(contextlib.closing(sibling(connection, replication=True)))
        (row,) = connection.execute("IDENTIFY_SYSTEM").fetchall()
    return SystemIdentity(row[0], int(row[1]), *place)


def timeline(connection: Connection) -> Timeline:
    """The server's timeline; by a connection for replication. Raises SourceError."""
    with translated("asking for the source's timeline"):
        row = connection.execute("IDENTIFY_SYSTEM").fetchone()
        number = int(row[1]) if row else 1
        if number == 1:
            return Timeline(1)
        answer = connection.execute(sql.SQL("TIMELINE_HISTORY {}").format(number)).pgresult
    return Timeline(number, parsed((answer and answer.get_value(0, 1)) or b""))


def parsed(content: bytes) -> tuple[tuple[int, Lsn], ...]:
    """The lines of a history file: timeline, where it ended, and a reason that is for people."""
    found = []
    for line in content.splitlines():
        words = line.split(b"#")[0].split(maxsplit=2)
        if len(words) >= 2:
            found.append((int(words[0]), Lsn.parse(words[1].decode())))
    return tuple(found)
