"""penstock check: every question of both ends, in one pass."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from penstock.cli.output import print_json
from penstock.clickhouse import checks as destination_checks
from penstock.clickhouse.client import Client
from penstock.control.store import home
from penstock.errors import DestinationError, SourceError
from penstock.finding import Finding, Severity
from penstock.pipeline.prepare import read_tables, refuse_not_yet
from penstock.postgres import checks as source_checks
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from penstock.config import Pipe

_COLOURS = {Severity.BLOCKING: "red", Severity.WARNING: "yellow", Severity.INFO: "blue"}


def check_pipe(pipe: Pipe) -> list[Finding]:
    """Every finding of both ends, the blocking ones first. An end that cannot be reached is a finding of its own."""
    refuse_not_yet(pipe)
    findings = [*_source(pipe), *_destination(pipe)]
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def _source(pipe: Pipe) -> list[Finding]:
    try:
        with Connector(pipe.source, application_name=f"penstock {pipe.name}").connect() as connection:
            return source_checks.check(connection, pipe, read_tables(pipe, connection))
    except SourceError as error:
        return [Finding("source reachable", Severity.BLOCKING, "source", error.message, error.hint)]


def _destination(pipe: Pipe) -> list[Finding]:
    try:
        client = Client.open(pipe.destination, scratch=home() / f"{pipe.name}.check")
    except DestinationError as error:
        return [Finding("destination reachable", Severity.BLOCKING, "destination", error.message, error.hint)]
    with contextlib.closing(client):
        return destination_checks.check(client, pipe.database)


def show(findings: list[Finding], *, as_json: bool) -> None:
    """Print the findings."""
    if as_json:
        print_json([{**asdict(finding), "severity": finding.severity.value} for finding in findings])
        return
    for finding in findings:
        label = typer.style(f"{finding.severity.value:>8}", fg=_COLOURS[finding.severity], bold=True)
        typer.echo(f"{label}  {finding.subject}: {finding.problem}")
        for line in finding.fix.splitlines():
            typer.echo(f"          {typer.style('fix:', bold=True)} {line}")
    if not findings:
        typer.echo("Both ends are ready.")
