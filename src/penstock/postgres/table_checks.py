"""What is asked of the tables before a pipe runs; part of ``checks.CHECKS``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.finding import Finding, Fix, Severity
from penstock.language import N_, said
from penstock.observe.words import count, size
from penstock.plan import identity_statement
from penstock.postgres.question import listed, quoted
from penstock.table import Leaf, ReplicaIdentity, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres.question import Question

LARGE_BYTES = 1 << 30
"""From here on it is said how much there is to copy."""
_OF_THEIR_OWN = (ReplicaIdentity.INDEX, ReplicaIdentity.NOTHING)


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


def _mixed(table: Table, leaves: list[Leaf]) -> Finding:
    return Finding(
        "replica_identity",
        Severity.BLOCKING,
        table.full_name,
        said("its partitions do not agree on what identifies a row"),
        said("A DELETE does not say which row it was."),
        Fix(
            sql=tuple(
                f"ALTER TABLE {quoted(leaf.schema)}.{quoted(leaf.name)} REPLICA IDENTITY DEFAULT;" for leaf in leaves
            )
        ),
    )


_WITHOUT_KEY = N_("it has no primary key")
_NOTHING = N_("its replica identity is NOTHING")
_DEFERRABLE = N_("its primary key is deferrable, which cannot identify rows")


def _without_identity(table: Table, *, blocking: bool, deferrable: bool) -> Finding:
    problem = _WITHOUT_KEY
    if table.replica_identity is ReplicaIdentity.NOTHING:
        problem = _NOTHING
    elif deferrable:
        problem = _DEFERRABLE
    return Finding(
        "replica_identity",
        Severity.BLOCKING if blocking else Severity.WARNING,
        table.full_name,
        said(problem),
        said("Once it is published PostgreSQL refuses the application's UPDATE and DELETE on it."),
        Fix(advice=said("Better than the statement: a primary key."), sql=(identity_statement(table),)),
    )


def _keyless(table: Table) -> Finding:
    return Finding(
        "replica_identity",
        Severity.INFO,
        table.full_name,
        said("it has no key"),
        said("Every change is kept, an UPDATE as two rows, and the current view adds them up when it is read."),
        Fix(advice=said("Add a primary key if it is updated much.")),
    )


def left_out_columns(asked: Question) -> Iterator[Finding]:
    """Columns that neither copy nor stream carry."""
    for table in asked.tables:
        if table.left_out:
            yield Finding(
                "columns_left_out",
                Severity.INFO,
                table.full_name,
                said("columns are left out: {columns}", columns=", ".join(table.left_out)),
                said("They are generated, or not in the publication's column list."),
            )


_KINDS = {
    ("unlogged", False): N_("the table is unlogged: it is left out"),
    ("foreign", False): N_("the table is foreign: it is left out"),
    ("unlogged", True): N_("a partition of {root} is unlogged: it is left out"),
    ("foreign", True): N_("a partition of {root} is foreign: it is left out"),
}


def left_out(asked: Question) -> Iterator[Finding]:
    """What looks like a table of the pipe, and cannot be one."""
    for schema, name, kind, root in asked.fetch("left_out"):
        if asked.pipe.tables.matches(root or f"{schema}.{name}"):
            logged = f"ALTER TABLE {quoted(schema)}.{quoted(name)} SET LOGGED;"
            yield Finding(
                "left_out",
                Severity.WARNING,
                f"{schema}.{name}",
                said(_KINDS[kind, bool(root)], root=root),
                said("Its changes are in no stream."),
                Fix(sql=(logged,)) if kind == "unlogged" else Fix(advice=said("Leave it out: tables.exclude.")),
            )


def hypertables(asked: Question) -> Iterator[Finding]:
    """TimescaleDB keeps the rows of a hypertable in chunks, of which a publication of the hypertable sends nothing."""
    (there,) = asked.fetch("relation_exists", name="_timescaledb_catalog.hypertable")
    known = {f"{row.schema}.{row.name}" for row in asked.fetch("hypertables")} if there.found else set()
    for table in asked.tables:
        if table.full_name in known:
            yield Finding(
                "hypertables",
                Severity.BLOCKING,
                table.full_name,
                said("it is a hypertable of TimescaleDB"),
                said("Its rows are in chunks, which this version does not bring together: it would stay empty."),
                Fix(advice=said("Leave it out: tables.exclude.")),
            )


def waiting_changes(asked: Question) -> Iterator[Finding]:
    """Tables whose changes wait in the WAL until their copy has ended."""
    waiting = [
        table
        for table in asked.tables
        if not table.old_is_full
        and table.key
        and set(asked.pipe.tables.options_for(table.full_name).order_by) - set(table.identity)
        and asked.pipe.tables.options_for(table.full_name).shape == "current"
    ]
    if waiting:
        yield Finding(
            "waiting_changes",
            Severity.INFO,
            listed(table.full_name for table in waiting),
            said("order_by names columns that PostgreSQL does not tell of an old row"),
            said("Changes of such a table wait until its copy has ended, and the WAL is kept for so long."),
            Fix(
                advice=said("With a whole old row they need not wait; each UPDATE and DELETE then writes more WAL."),
                sql=tuple(identity_statement(table) for table in waiting),
            ),
        )


def sizes(asked: Question) -> Iterator[Finding]:
    """How much there is to copy."""
    total = sum(table.estimated_bytes for table in asked.tables)
    if total < LARGE_BYTES:
        return
    largest = max(asked.tables, key=lambda table: table.estimated_bytes)
    yield Finding(
        "sizes",
        Severity.INFO,
        said("the source"),
        said(
            "about {rows} rows, {size} in {tables} tables are to be copied; the largest is {largest}, {largest_size}",
            rows=count(sum(table.estimated_rows for table in asked.tables)),
            size=size(total),
            tables=len(asked.tables),
            largest=largest.full_name,
            largest_size=size(largest.estimated_bytes),
        ),
        said("Penstock copies in parts, so WAL does not pile up meanwhile."),
    )


CHECKS: tuple[Callable[[Question], Iterator[Finding]], ...] = (
    keys,
    left_out_columns,
    left_out,
    hypertables,
    waiting_changes,
    sizes,
)
