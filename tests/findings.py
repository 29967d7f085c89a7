"""Findings in tests: the checks of one source, and fixes applied as they are printed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from penstock.config import Pipe, parse
from penstock.finding import Finding, Severity
from penstock.postgres import catalog, checks, hosts
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fix_postgres import Database


def pipe_of(dsn: str, tables: dict[str, Any] | None = None, mode: str = "cdc", **source: Any) -> Pipe:
    return parse(
        {
            "pipe": {"name": "shop", "mode": mode},
            "source": {"dsn": dsn, **source},
            "destination": {"dsn": "chdb:///nowhere"},
            "tables": tables or {},
        },
        origin="test",
    )


def check(pipe: Pipe, *standbys: str) -> list[Finding]:
    """What is found, after the texts have been looked at."""
    named = [hosts.beside(pipe.source.dsn, each) for each in standbys]
    with contextlib.closing(Connector(pipe.source, "penstock test").connect()) as connection:
        tables = catalog.read_tables(connection, pipe.tables.matches, pipe.publication)
        found = checks.check(connection, pipe, tables, named)
    for each in found:
        assert each.subject
        assert each.problem
        assert each.fix or each.severity is Severity.INFO, each
        assert "{" not in each.problem + each.why + each.fix.advice, each
    return found


def named(pipe: Pipe, *names: str) -> list[Finding]:
    """The findings of these checks."""
    return [finding for finding in check(pipe) if finding.check in names]


def one(pipe: Pipe, name: str) -> Finding:
    """The only finding of a check."""
    (found,) = named(pipe, name)
    return found


def names(pipe: Pipe) -> set[str]:
    """The checks that find something."""
    return {finding.check for finding in check(pipe)}


def mend(database: Database, *found: Finding) -> None:
    """Run the fixes' statements as they are printed, as the superuser."""
    database.execute(*statements(found))


def statements(found: Iterable[Finding]) -> list[str]:
    """The statements of the fixes, of which there must be some."""
    every = [statement for finding in found for statement in finding.fix.sql]
    assert every, found
    return every
