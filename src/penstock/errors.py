"""Every error Penstock raises on purpose, and what it means for the pipe.

    PenstockError
    ├── ConfigError                 the pipe's definition is wrong                     never retried
    ├── PipeHeldError               another process runs this pipe                     never retried
    ├── StateError                  the state store cannot be read or written          needs the operator
    ├── NotYetError                 parsed and understood, but not built yet           never retried
    ├── SourceError                 PostgreSQL's side
    │   ├── SourceUnavailableError  refused, cut, timed out, starting up               retried after backoff
    │   │   └── SourceMovedError         the DSN leads to another server
    │   ├── TimelineChangedError    promoted: the pipe begins anew there               by itself
    │   ├── SourceRefusedError      password, privilege, setting, wrong endpoint       needs the operator
    │   ├── ValueUnreadableError    a value that PostgreSQL itself cannot send          never retried
    │   ├── SlotError               missing, lost, another system                      needs the operator
    │   ├── SlotHeldError           another process streams from the slot              retried after backoff
    │   └── PublicationError        missing, or without a table                        needs the operator
    ├── FrameError                  the stream's bytes are not what the protocol says  retried: read again
    ├── DestinationError            ClickHouse's side
    │   ├── ResultTooLargeError          of a query of ours that is asked again in parts       never retried
    │   ├── DestinationUnavailableError  overloaded, read-only, too many parts, out of time    retried after backoff
    │   │   └── DestinationAwayError         refused, cut: every table waits                   retried after backoff
    │   └── DestinationRefusedError      password, privilege, setting                  needs the operator
    └── TableError                  stops one table; the others go on
        ├── KeyMissingError         no replica identity
        ├── SchemaConflictError     the source's table changed
        │   └── TargetConflictError the destination's table does not fit, or is gone     by itself, when it fits again
        ├── LostChangesError    the source lost changes that the destination has
        ├── UnfitKeyError           a key value that its ClickHouse type cannot hold
        ├── UnfitValueError         the same of another column, where on_unfit = "fail"
        └── BadDataError            ClickHouse refused a block that it was sent

A message names the object and says what happened; the hint says what to do next. Neither ever holds
a secret, or of a row more than its key. Drivers' errors are translated in postgres/connection.py and clickhouse/client.py only.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class Retry(Enum):
    """Whether trying again helps."""

    AFTER_BACKOFF = "after backoff"
    NEEDS_OPERATOR = "needs the operator"
    NEVER = "never"


class PenstockError(Exception):
    """The root: a sentence for people, and what to do next."""

    retry: ClassVar[Retry] = Retry.NEVER

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[PenstockError], message: str, hint: str) -> PenstockError:
    return kind(message, hint=hint)


class ConfigError(PenstockError):
    """The pipe's definition is wrong."""


class PipeHeldError(PenstockError):
    """Another process runs this pipe."""


class StateError(PenstockError):
    """The state store cannot be read or written."""

    retry = Retry.NEEDS_OPERATOR


class NotYetError(PenstockError):
    """A setting or command that is known, but not built yet."""


class SourceError(PenstockError):
    """Something about PostgreSQL."""

    retry = Retry.NEEDS_OPERATOR


class SourceUnavailableError(SourceError):
    """The source cannot be reached at the moment."""

    retry = Retry.AFTER_BACKOFF


class SourceMovedError(SourceUnavailableError):
    """The DSN leads to another server than the one that streams."""


class TimelineChangedError(SourceError):
    """The source was promoted from a standby: the pipe begins anew, on the new timeline."""

    retry = Retry.NEVER


class SourceChangedError(SourceError):
    """A table got another name, or was dropped, between two looks at it."""

    retry = Retry.AFTER_BACKOFF


class SourceRefusedError(SourceError):
    """The source said no: password, privilege, setting, wrong endpoint."""


class ValueUnreadableError(SourceError):
    """PostgreSQL cannot send a value: it is too large as text, or has a character that UTF-8 lacks."""

    retry = Retry.NEVER


class SlotError(SourceError):
    """The replication slot is missing or lost, or belongs to another system."""


class SlotHeldError(SourceError):
    """Another process streams from the slot."""

    retry = Retry.AFTER_BACKOFF


class PublicationError(SourceError):
    """The publication is missing, or does not publish a table of the pipe."""


class FrameError(PenstockError):
    """The stream's bytes are not what the protocol says."""

    retry = Retry.AFTER_BACKOFF


class DestinationError(PenstockError):
    """Something about ClickHouse."""

    retry = Retry.NEEDS_OPERATOR


class ResultTooLargeError(DestinationError):
    """The answer is larger than was asked for: ask in parts."""

    retry = Retry.NEVER


class DestinationUnavailableError(DestinationError):
    """The destination cannot take data at the moment."""

    retry = Retry.AFTER_BACKOFF


class DestinationAwayError(DestinationUnavailableError):
    """The destination cannot be reached: no table can go on."""


class DestinationRefusedError(DestinationError):
    """The destination said no: password, privilege, setting."""


class TableError(PenstockError):
    """One table cannot go on; the others do."""

    retry = Retry.NEEDS_OPERATOR


class KeyMissingError(TableError):
    """The table has neither a key nor REPLICA IDENTITY FULL."""


class SchemaConflictError(TableError):
    """The table's definition cannot be followed."""


class TargetConflictError(SchemaConflictError):
    """The destination's table lacks something, or is gone. When it is mended the table is copied again by itself."""


class LostChangesError(TableError):
    """The source was promoted without changes that the destination has: copy the table again."""


class UnfitKeyError(TableError):
    """A key value that its ClickHouse type cannot hold: two keys must never merge."""


class UnfitValueError(TableError):
    """A value that its ClickHouse type cannot hold, where on_unfit = "fail"."""


class BadDataError(TableError):
    """ClickHouse refused a block of rows."""
