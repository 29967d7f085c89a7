"""penstock check: how findings look."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

import typer

from penstock.cli.output import print_json
from penstock.finding import Severity
from penstock.language import said
from penstock.observe.words import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.finding import Finding, Fix

_COLOURS = {Severity.BLOCKING: "red", Severity.WARNING: "yellow", Severity.INFO: "blue"}


def show(findings: list[Finding], *, as_json: bool) -> None:
    """Print the findings, which are sorted by severity."""
    if as_json:
        print_json([{**asdict(finding), "severity": finding.severity.value} for finding in findings])
        return
    shown_way: set[str] = set()
    for severity, found in groupby(findings, lambda finding: finding.severity):
        typer.secho(_heading(severity), fg=_COLOURS[severity], bold=True)
        for finding in found:
            for line in _lines(finding, shown_way):
                typer.echo(line)
        typer.echo()
    if any(finding.severity is Severity.BLOCKING for finding in findings):
        typer.echo(said("penstock setup PIPE.toml shows what it can do about the source, and does it with --apply."))
    if not any(finding.severity is not Severity.INFO for finding in findings):
        typer.echo(said("Both ends are ready."))


def _heading(severity: Severity) -> str:
    match severity:
        case Severity.BLOCKING:
            return said("BLOCKING: the pipe cannot run")
        case Severity.WARNING:
            return said("WARNING: the pipe runs, but this will hurt")
        case Severity.INFO:
            return said("WORTH KNOWING")


def _lines(finding: Finding, shown_way: set[str]) -> Iterator[str]:
    yield f"  {typer.style(shown(finding.subject), bold=True)}: {shown(finding.problem)}"
    if finding.why:
        yield f"    {shown(finding.why)}"
    for label, text in _ways(finding.fix, shown_way):
        for index, line in enumerate(text):
            head = typer.style(label, bold=True) if index == 0 else " " * len(label)
            yield f"    {head} {shown(line)}"


def _ways(fix: Fix, shown_way: set[str]) -> Iterator[tuple[str, list[str]]]:
    """What there is of a fix. How a parameter is set is shown once; ``shown_way`` remembers for which one."""
    if fix.parameter and fix.console:
        if shown_way:
            first = next(iter(shown_way))
            return iter(
                [
                    (
                        said("fix:"),
                        [said("{parameter}, in the same way as {first}", parameter=fix.parameter, first=first)],
                    )
                ]
            )
        shown_way.add(fix.parameter)
    ways = (
        ("SQL:", list(fix.sql)),
        (said("note:") if fix.sql else said("fix:"), [fix.advice] if fix.advice else []),
        (said("console:"), [fix.console] if fix.console else []),
        ("CLI:", list(fix.cli)),
        ("Terraform:", fix.terraform.splitlines()),
    )
    return ((label, lines) for label, lines in ways if lines)
