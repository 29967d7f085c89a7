"""What is asked of the tables before a pipe runs; part of ``checks.CHECKS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.finding import Finding, Severity
from penstock.plan import identity_statement
from penstock.postgres.question import quoted
from penstock.table import ReplicaIdentity, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.postgres.question import Question


def keys(asked: Question) -> Iterator[Finding]:
    """Whether rows can be told apart, and UPDATE and DELETE go on working."""
    deferrable = {each.oid for each in asked.relations if each.deferrable}
    for table in asked.tables:
        shape = asked.pipe.tables.options_for(table.full_name).shape
        if not table.identity and not table.old_is_full:
            yield _without_identity(table, blocking=shape == "current", deferrable=table.oid in deferrable)
        elif not table.key and shape == "current":
            yield _keyless(table)


def _without_identity(table: Table, *, blocking: bool, deferrable: bool) -> Finding:
    why = "it has no primary key"
    if table.replica_identity is ReplicaIdentity.NOTHING:
        why = "its replica identity is NOTHING"
    elif deferrable:
        why = "its primary key is deferrable, which cannot identify rows"
    elif table.leaves:
        why = "its partitions do not agree on what identifies a row"
    problem = f"{why}: once it is published, PostgreSQL refuses UPDATE and DELETE on it"
    severity = Severity.BLOCKING if blocking else Severity.WARNING
    return Finding(
        "replica identity", severity, table.full_name, problem, f"Add a primary key, or: {identity_statement(table)}"
    )


def _keyless(table: Table) -> Finding:
    if table.old_is_full:
        problem = "it has no key: every column together is the key, and rows that are equal in all of them become one"
        return Finding("replica identity", Severity.WARNING, table.full_name, problem, "Add a primary key.")
    problem = "its partitions have other replica identities than the table: a DELETE does not say which row"
    leaves = "\n".join(
        f"ALTER TABLE {quoted(leaf.schema)}.{quoted(leaf.name)} REPLICA IDENTITY DEFAULT;" for leaf in table.leaves
    )
    return Finding("replica identity", Severity.BLOCKING, table.full_name, problem, leaves)


def generated(asked: Question) -> Iterator[Finding]:
    """Columns that neither copy nor stream carry."""
    for table in asked.tables:
        if table.generated:
            problem = f"generated columns are left out: {', '.join(table.generated)}"
            yield Finding("generated columns", Severity.INFO, table.full_name, problem)


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
