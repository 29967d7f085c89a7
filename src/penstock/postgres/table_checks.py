"""What is asked of the tables before a pipe runs; part of ``checks.CHECKS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.finding import Finding, Severity
from penstock.plan import identity_statement
from penstock.postgres.question import quoted
from penstock.table import Leaf, ReplicaIdentity, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.postgres.question import Question


def keys(asked: Question) -> Iterator[Finding]:
    """Whether rows can be told apart, and UPDATE and DELETE go on working."""
    deferrable = {each.oid for each in asked.relations if each.deferrable}
    for table in asked.tables:
        current = asked.pipe.tables.options_for(table.full_name).shape == "current"
        if table.key and table.identity:
            continue
        if odd := [leaf for leaf in table.leaves if leaf.replica_identity in _OF_THEIR_OWN]:
            yield _mixed(table, odd)
        elif not table.identity:
            yield _without_identity(table, blocking=current, deferrable=table.oid in deferrable)
        elif current:
            yield _keyless(table)


_OF_THEIR_OWN = (ReplicaIdentity.INDEX, ReplicaIdentity.NOTHING)


def _mixed(table: Table, leaves: list[Leaf]) -> Finding:
    problem = "its partitions do not agree on what identifies a row: a DELETE does not say which one"
    fix = "\n".join(
        f"ALTER TABLE {quoted(leaf.schema)}.{quoted(leaf.name)} REPLICA IDENTITY DEFAULT;" for leaf in leaves
    )
    return Finding("replica identity", Severity.BLOCKING, table.full_name, problem, fix)


def _without_identity(table: Table, *, blocking: bool, deferrable: bool) -> Finding:
    why = "it has no primary key"
    if table.replica_identity is ReplicaIdentity.NOTHING:
        why = "its replica identity is NOTHING"
    elif deferrable:
        why = "its primary key is deferrable, which cannot identify rows"
    problem = f"{why}: once it is published, PostgreSQL refuses UPDATE and DELETE on it"
    severity = Severity.BLOCKING if blocking else Severity.WARNING
    return Finding(
        "replica identity", severity, table.full_name, problem, f"Add a primary key, or: {identity_statement(table)}"
    )


def _keyless(table: Table) -> Finding:
    problem = (
        "it has no key: every change is kept, an UPDATE as two rows, and the current view adds them up when it is read"
    )
    return Finding(
        "replica identity", Severity.INFO, table.full_name, problem, "Add a primary key if it is updated much."
    )


def left_out_columns(asked: Question) -> Iterator[Finding]:
    """Columns that neither copy nor stream carry."""
    for table in asked.tables:
        if table.left_out:
            problem = f"columns that are generated, or not in the publication's column list, are left out: {', '.join(table.left_out)}"
            yield Finding("columns left out", Severity.INFO, table.full_name, problem)


def left_out(asked: Question) -> Iterator[Finding]:
    """What looks like a table of the pipe, and cannot be one."""
    for schema, name, kind, root in asked.fetch("left_out"):
        belongs = root or f"{schema}.{name}"
        if asked.pipe.tables.matches(belongs):
            what = f"a partition of {root} is {kind}" if root else f"the table is {kind}"
            fix = f"ALTER TABLE {quoted(schema)}.{quoted(name)} SET LOGGED;" if kind == "unlogged" else ""
            yield Finding(
                "left out",
                Severity.WARNING,
                f"{schema}.{name}",
                f"{what}, which no stream of changes has: it is left out",
                fix,
            )
