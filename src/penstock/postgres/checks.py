"""What is asked of the source before a pipe runs. A check returns findings; an error means that it could not be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import SourceError
from penstock.finding import Finding, Fix, Severity
from penstock.language import said, spoken
from penstock.postgres import (
    capacity_checks,
    role_checks,
    server_checks,
    standby_checks,
    stream_checks,
    table_checks,
    wal_checks,
)
from penstock.postgres.question import Question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.config import Pipe
    from penstock.postgres.connection import Connection
    from penstock.table import Table

CHECKS: tuple[Callable[[Question], Iterator[Finding]], ...] = (
    *server_checks.CHECKS,
    *capacity_checks.CHECKS,
    *role_checks.CHECKS,
    *table_checks.CHECKS,
    *standby_checks.CHECKS,
    *stream_checks.CHECKS,
    *wal_checks.CHECKS,  # the last one measures how much WAL was written meanwhile
)


_OF_A_STREAM = {
    server_checks.endpoint,
    server_checks.recovery,
    server_checks.wal_level,
    *capacity_checks.CHECKS,
    role_checks.replication,
    role_checks.default_privileges,
    table_checks.keys,
    table_checks.waiting_changes,
    *stream_checks.CHECKS,
    *wal_checks.CHECKS,
}
"""What does not concern a pipe that copies once."""


def check(
    connection: Connection, pipe: Pipe, tables: Sequence[Table], standbys: Sequence[tuple[str, str]] = ()
) -> list[Finding]:
    """Every question, in the order of CHECKS. Raises what a connection raises."""
    asked = Question.of(connection, pipe, tables, standbys)
    left_out = _OF_A_STREAM if pipe.pipe.mode == "snapshot" else set()
    return [finding for question in CHECKS if question not in left_out for finding in _findings(question, asked)]


def _findings(question: Callable[[Question], Iterator[Finding]], asked: Question) -> list[Finding]:
    try:
        return list(question(asked))
    except SourceError as error:
        return [
            Finding(
                question.__name__,
                Severity.WARNING,
                said("the source"),
                said("this could not be checked: {error}", error=error.message),
                fix=Fix(advice=spoken(error.hint)),
            )
        ]
