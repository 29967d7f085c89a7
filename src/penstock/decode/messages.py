"""What one message of the stream says, as values. pgoutput.py knows how it is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from penstock.batch import Relation


class Unchanged(Enum):
    """The one value of a field that an UPDATE left out: stored out of line, and not changed ('u')."""

    UNCHANGED = "u"


UNCHANGED: Final = Unchanged.UNCHANGED
Field = bytes | Unchanged | None  # PostgreSQL's text, 'u', NULL
Tuple = tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The server's own position, and whether it wants an answer at once."""

    wal_end: int
    reply_requested: bool


@dataclass(frozen=True, slots=True)
class Begin:
    """The start of a transaction, all of which has been committed. ``committed_at`` in microseconds since 1970."""

    commit_lsn: int
    committed_at: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The end of a transaction."""

    end_lsn: int


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row."""

    oid: int
    new: Tuple


@dataclass(frozen=True, slots=True)
class Update:
    """A changed row. ``old`` is there when the key may have changed ('K': ``marked_full`` is False), or the identity is FULL ('O')."""

    oid: int
    new: Tuple
    old: Tuple | None
    marked_full: bool


@dataclass(frozen=True, slots=True)
class Delete:
    """A row that is gone."""

    oid: int
    old: Tuple
    marked_full: bool


@dataclass(frozen=True, slots=True)
class TruncateTables:
    """Relations that are empty from here on."""

    oids: tuple[int, ...]
    cascade: bool
    restart_identity: bool


Message = KeepAlive | Begin | Commit | Relation | Insert | Update | Delete | TruncateTables
