"""penstock check: how findings look."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from penstock.cli.output import print_json
from penstock.finding import Severity
from penstock.observe.words import shown

if TYPE_CHECKING:
    from penstock.finding import Finding

_COLOURS = {Severity.BLOCKING: "red", Severity.WARNING: "yellow", Severity.INFO: "blue"}


def show(findings: list[Finding], *, as_json: bool) -> None:
    """Print the findings."""
    if as_json:
        print_json([{**asdict(finding), "severity": finding.severity.value} for finding in findings])
        return
    for finding in findings:
        label = typer.style(f"{finding.severity.value:>8}", fg=_COLOURS[finding.severity], bold=True)
        typer.echo(f"{label}  {shown(f'{finding.subject}: {finding.problem}')}")
        for line in finding.fix.split("\n") if finding.fix else ():
            typer.echo(f"          {typer.style('fix:', bold=True)} {shown(line)}")
    if not findings:
        typer.echo("Both ends are ready.")
