"""Every question of both ends, in one pass: what ``penstock check`` prints and what ``penstock run`` asks first."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from penstock.clickhouse import capabilities
from penstock.clickhouse import checks as destination_checks
from penstock.clickhouse.client import Client
from penstock.errors import DestinationError, KeyMissingError, SourceError
from penstock.finding import Finding, Severity
from penstock.pipeline.prepare import compile_all, read_tables, refuse_not_yet
from penstock.postgres import checks as source_checks
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from penstock.config import Pipe
    from penstock.table import Table


def check(pipe: Pipe, scratch: Path) -> list[Finding]:
    """The findings, the blocking ones first. An end that cannot be reached is a finding of its own.

    Raises ConfigError where the definition does not fit the source's tables.
    """
    refuse_not_yet(pipe)
    tables: list[Table] = []
    findings = [*_source(pipe, tables), *_destination(pipe, tables, scratch)]
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def _source(pipe: Pipe, tables: list[Table]) -> list[Finding]:
    """Fills ``tables`` too."""
    try:
        with Connector(pipe.source, application_name=f"penstock {pipe.name}").connect() as connection:
            tables += read_tables(pipe, connection)
            return source_checks.check(connection, pipe, tables)
    except SourceError as error:
        return [Finding("source reachable", Severity.BLOCKING, "source", error.message, error.hint)]


def _destination(pipe: Pipe, tables: Sequence[Table], scratch: Path) -> list[Finding]:
    try:
        client = Client.open(pipe.destination, scratch=scratch)
    except DestinationError as error:
        return [Finding("destination reachable", Severity.BLOCKING, "destination", error.message, error.hint)]
    with contextlib.closing(client):
        findings = destination_checks.check(client, pipe.database)
        with contextlib.suppress(DestinationError):  # which is among the findings
            _, refused = compile_all(pipe, tables, capabilities.ask(client))
            findings += [
                Finding("names", Severity.BLOCKING, name, error.message.removeprefix(f"{name}: "), error.hint)
                for name, error in refused
                if not isinstance(error, KeyMissingError)  # which is among the source's findings
            ]
        return findings
