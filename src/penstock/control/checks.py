"""Every question of both ends, in one pass: what ``penstock check`` prints. Nothing is changed that stays."""

from __future__ import annotations

import contextlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.clickhouse import address, capabilities, ddl, fit
from penstock.clickhouse import checks as destination_checks
from penstock.clickhouse.client import Client
from penstock.control.hold import hold
from penstock.control.store import StateStore
from penstock.errors import ConfigError, DestinationError, KeyMissingError, PipeHeldError, SourceError, StateError
from penstock.finding import Finding, Fix, Severity
from penstock.language import said, spoken
from penstock.pipeline.older import as_stored, narrower
from penstock.pipeline.prepare import compile_all, read_tables, refuse_not_yet
from penstock.postgres import checks as source_checks
from penstock.postgres import hosts, providers
from penstock.postgres.connection import Connector
from penstock.postgres.providers import advice
from penstock.postgres.server_checks import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import TableRecord
    from penstock.pipeline.prepare import Unknown
    from penstock.plan import Plan
    from penstock.table import Table

_NAMES = "select name, toString(uuid) from system.tables where database = {database:String}"


def check(pipe: Pipe, folder: Path, standbys: Sequence[str] = ()) -> list[Finding]:
    """The findings, the blocking ones first; both ends are asked at the same time. ``folder`` is PENSTOCK_HOME.

    ``standbys`` are DSNs of servers that are asked for what a failover to them takes. An end that cannot be reached is a finding
    of its own. Raises ConfigError for what can be told from the definition alone.
    """
    refuse_not_yet(pipe)
    named = [hosts.beside(pipe.source.dsn, each) for each in standbys]
    with tempfile.TemporaryDirectory(prefix="penstock-check-") as scratch, ThreadPoolExecutor(2, "check") as pool:
        source = pool.submit(copy_context().run, _source, pipe, folder, named)
        destination = pool.submit(
            copy_context().run, _destination, pipe, folder, Path(scratch), lambda: source.result()[1]
        )
        findings = source.result()[0] + destination.result()
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def _source(pipe: Pipe, folder: Path, standbys: Sequence[tuple[str, str]]) -> tuple[list[Finding], list[Table]]:
    """What is found, and the tables as far as they could be read."""
    tables: list[Table] = []
    connector = Connector(pipe.source, application_name=f"penstock {pipe.name}")
    try:
        with connector.connect() as connection:
            tables, wrong = read_tables(pipe, connection)
            unknown = _unknown(wrong, has_run=bool(_records(pipe, folder)))
            return unknown + source_checks.check(connection, pipe, tables, standbys), tables
    except (SourceError, ConfigError) as error:  # as of a password that is not there
        return [_unreachable(connector, error)], tables


def _unknown(wrong: Sequence[Unknown], *, has_run: bool) -> list[Finding]:
    """A pipe that has never run is refused; one that has goes on without the tables that are gone."""
    severity = Severity.WARNING if has_run else Severity.BLOCKING
    why = said("It may be gone; the other tables are followed.") if has_run else said("A pipe does not begin so.")
    return [
        Finding("tables", severity, each.name or each.where, spoken(each.problem), why, Fix(advice=spoken(each.hint)))
        for each in wrong
    ]


def _unreachable(connector: Connector, error: SourceError | ConfigError) -> Finding:
    """A source that does not answer; one that is not PostgreSQL may not even understand how it is asked."""
    found = providers.by_host(connector.host).provider
    if found.support is providers.Support.NONE:
        return refused(found)
    why = said("Nothing else could be asked there.")
    fix = Fix(advice=spoken(error.hint))
    if "timeout expired" in error.message:
        fix += advice.admission(connector.host)
    return Finding("source_reachable", Severity.BLOCKING, connector.where, spoken(error.message), why, fix)


# The destination


def _destination(pipe: Pipe, folder: Path, scratch: Path, tables: Callable[[], list[Table]]) -> list[Finding]:
    """What is found; ``tables`` gives the source's when they are known."""
    if found := _no_folder(pipe):
        return [found]
    return _plain(pipe) + _answers(pipe, folder, scratch, tables)


def _answers(pipe: Pipe, folder: Path, scratch: Path, tables: Callable[[], list[Table]]) -> list[Finding]:
    try:
        client = Client.open(_harmless(pipe, scratch).destination, scratch=scratch)
    except DestinationError as error:
        return [_busy(pipe, error) if _runs(pipe, folder) else destination_checks.unreachable("ClickHouse", error)]
    with contextlib.closing(client):
        findings = destination_checks.check(client, pipe.database)
        if not any(finding.severity is Severity.BLOCKING for finding in findings):
            made = {record.target_id for record in _records(pipe, folder) if record.target_id}
            findings += _plans(pipe, client, tables(), made)
        return findings


def _plain(pipe: Pipe) -> list[Finding]:
    """A server that is spoken to in the open; through a tunnel, and within this machine, nobody reads along."""
    where = address.read(pipe.destination)
    if where.path or where.secure or where.ssh or where.on_loopback:
        return []
    return [
        Finding(
            "destination_encryption",
            Severity.WARNING,
            where.name,
            said("the connection is not encrypted"),
            said("Whoever is on the way can read every row, and the password."),
            Fix(
                advice=said(
                    "Let destination.dsn have secure=true and the server's HTTPS port (8443), with ca_cert=… where its "
                    "authority is not among this machine's."
                )
            ),
        )
    ]


def _no_folder(pipe: Pipe) -> Finding | None:
    """Where an embedded database cannot be made."""
    path = address.read(pipe.destination).path
    parent = next((each for each in path.parents if each.exists()), None) if path and not path.exists() else None
    if parent is None or (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        return None
    return Finding(
        "destination_reachable",
        Severity.BLOCKING,
        str(path),
        said("the folder cannot be made in {parent}", parent=parent),
        said("Nothing else could be asked there."),
        Fix(advice=said("Name a folder in destination.dsn that can be made and written.")),
    )


def _harmless(pipe: Pipe, scratch: Path) -> Pipe:
    """The pipe, with another folder for an embedded database that is still to be made."""
    path = address.read(pipe.destination).path
    if path is None or path.exists():
        return pipe
    elsewhere = pipe.destination.model_copy(update={"dsn": f"chdb://{scratch}/data"})
    return pipe.model_copy(update={"destination": elsewhere})


def _runs(pipe: Pipe, folder: Path) -> bool:
    try:
        with hold(folder, pipe.name):
            return False
    except PipeHeldError:
        return True


def _busy(pipe: Pipe, error: DestinationError) -> Finding:
    problem = said("it is open in the pipe, which is running: {error}", error=error.message)
    why = said("An embedded database is open in one process only, so it was not asked.")
    return Finding("destination_busy", Severity.INFO, pipe.database, problem, why)


def _records(pipe: Pipe, folder: Path) -> list[TableRecord]:
    """What is known of the tables of a pipe that has run."""
    if not (folder / "state.db").is_file():
        return []
    with contextlib.suppress(StateError), contextlib.closing(StateStore(folder)) as store:
        return store.tables(pipe.name)
    return []


def _plans(pipe: Pipe, client: Client, tables: list[Table], ours: set[str]) -> list[Finding]:
    """Tables that cannot be had, are taken, or hold less here than on a newer server.

    ``ours`` are the ids of the tables in the destination that the pipe has filled, and follows through changes of their definitions.
    """
    try:
        server = capabilities.ask(client)
        names = dict(client.rows(_NAMES, {"database": pipe.database}))
        plans, refusals = compile_all(pipe, tables, server)
        stored = [as_stored(client, pipe, plan, server) if plan.target in names else plan for plan in plans]
        findings = narrower(pipe, stored, server)
        findings += _taken(pipe, client, [plan for plan in stored if names.get(plan.target) not in ours], names)
    except DestinationError as error:
        return [destination_checks.unreachable(client.name, error)]
    except ConfigError as error:
        return [
            Finding(
                "definition", Severity.BLOCKING, pipe.name, spoken(error.message), fix=Fix(advice=spoken(error.hint))
            )
        ]
    return findings + [
        Finding(
            "names",
            Severity.BLOCKING,
            name,
            spoken(error.message).removeprefix(f"{name}: "),
            fix=Fix(advice=spoken(error.hint)),
        )
        for name, error in refusals
        if not isinstance(error, KeyMissingError)  # which is among the source's findings
    ]


def _taken(pipe: Pipe, client: Client, plans: Sequence[Plan], names: Collection[str]) -> Iterator[Finding]:
    """Names that something else has in the destination."""
    database = pipe.database
    another = said("Or give this one another name: target in [tables.options].")
    why = said("A table is copied into an empty table of its own layout: other rows would mix with it, or be lost.")
    for plan in plans:
        if plan.target in names:
            subject = f"{database}.{plan.target}"
            if differences := ddl.differences(client, database, plan):
                problem = said("it exists, and does not fit: {differences}", differences="; ".join(differences))
                advice = said("Mend or drop it.")
                yield Finding("targets", Severity.BLOCKING, subject, problem, why, Fix(advice=f"{advice} {another}"))
            elif ddl.holds_rows(client, database, plan):
                advice = said("Empty or drop it.")
                problem = said("it exists, and holds rows")
                yield Finding("targets", Severity.BLOCKING, subject, problem, why, Fix(advice=f"{advice} {another}"))
        view = ddl.view_name(plan.target)
        shown = view in names and view in ddl.names(plan, views=pipe.destination.views)
        if shown and fit.is_foreign(client, database, view, comment=ddl.VIEW_COMMENT):
            yield Finding(
                "targets",
                Severity.BLOCKING,
                f"{database}.{view}",
                said("it exists, and is not Penstock's view of {table}", table=plan.target),
                said("The view of that name shows the rows as they are now."),
                Fix(advice=said("Rename or drop it, or set views = false in [destination].")),
            )
