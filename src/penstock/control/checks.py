"""Every question of both ends, in one pass: what ``penstock check`` prints and what ``penstock run`` asks first."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from penstock.clickhouse import capabilities
from penstock.clickhouse import checks as destination_checks
from penstock.clickhouse.client import Client
from penstock.errors import DestinationError, KeyMissingError, SourceError
from penstock.finding import Finding, Fix, Severity
from penstock.language import said
from penstock.pipeline.older import as_stored, narrower
from penstock.pipeline.prepare import compile_all, read_tables, refuse_not_yet
from penstock.postgres import checks as source_checks
from penstock.postgres import providers
from penstock.postgres.connection import Connector
from penstock.postgres.server_checks import refused

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.config import Pipe
    from penstock.table import Table


def check(pipe: Pipe, scratch: Path) -> list[Finding]:
    """The findings, the blocking ones first. An end that cannot be reached is a finding of its own.

    Raises ConfigError where the definition does not fit the source's tables.
    """
    refuse_not_yet(pipe)
    findings, tables = _source(pipe)
    findings += _destination(pipe, scratch, tables)
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def _source(pipe: Pipe) -> tuple[list[Finding], list[Table]]:
    """What is found, and the tables as far as they could be read."""
    tables: list[Table] = []
    connector = Connector(pipe.source, application_name=f"penstock {pipe.name}")
    try:
        with connector.connect() as connection:
            tables, wrong = read_tables(pipe, connection)
            if wrong:
                raise wrong[0]
            return source_checks.check(connection, pipe, tables), tables
    except SourceError as error:
        return [_unreachable(connector, error)], tables


def _unreachable(connector: Connector, error: SourceError) -> Finding:
    """A source that does not answer; one that is not PostgreSQL may not even understand how it is asked."""
    found = providers.by_host(connector.host).provider
    if found.support is providers.Support.NONE:
        return refused(found)
    why = said("Nothing else could be asked there.")
    return Finding("source_reachable", Severity.BLOCKING, connector.where, error.message, why, Fix(advice=error.hint))


def _destination(pipe: Pipe, scratch: Path, tables: list[Table]) -> list[Finding]:
    try:
        client = Client.open(pipe.destination, scratch=scratch)
    except DestinationError as error:
        return [destination_checks.unreachable("destination", error)]
    with contextlib.closing(client):
        findings = destination_checks.check(client, pipe.database)
        if not any(finding.severity is Severity.BLOCKING for finding in findings):
            findings += _plans(pipe, client, tables)
        return findings


def _plans(pipe: Pipe, client: Client, tables: list[Table]) -> list[Finding]:
    """Tables that cannot be had, and columns that hold less here than on a newer server."""
    try:
        server = capabilities.ask(client)
    except DestinationError as error:
        return [destination_checks.unreachable(client.name, error)]
    plans, refused = compile_all(pipe, tables, server)
    findings = narrower(pipe, [as_stored(client, pipe, plan, server) for plan in plans], server)
    return findings + [
        Finding("names", Severity.BLOCKING, name, error.message.removeprefix(f"{name}: "), fix=Fix(advice=error.hint))
        for name, error in refused
        if not isinstance(error, KeyMissingError)  # which is among the source's findings
    ]
