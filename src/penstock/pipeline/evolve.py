"""What a Relation message means for its table: which column of the tuple goes where, or that the table has changed.

For now a changed table is set aside, with the reason; nothing is ever guessed by name.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from penstock.errors import SchemaConflictError
from penstock.plan import Shape

if TYPE_CHECKING:
    from penstock.batch import Relation
    from penstock.plan import Plan
    from penstock.table import Table


def fingerprint(plan: Plan) -> str:
    """A short text that changes when a table's columns, types, key or plan change."""
    table = plan.table
    columns = [(column.name, column.number, column.type.oid, column.type.modifier) for column in table.columns]
    parts = (
        columns,
        table.key,
        [(column.name, column.clickhouse) for column in plan.columns],
        plan.key,
        plan.shape.value,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def tuple_source(relation: Relation, plan: Plan) -> tuple[int, ...]:
    """For each column of the relation's tuples, its index in the plan, or -1. Raises SchemaConflictError when it changed."""
    table = plan.table
    known = {column.name: (column.type.oid, column.type.modifier) for column in table.columns}
    for column in relation.columns:
        if column.name in plan.excluded or column.name in table.generated:
            continue
        if column.name not in known:
            raise _changed(table, f'column "{column.name}" is new')
        if known[column.name] != (column.type_oid, column.modifier):
            raise _changed(table, f'column "{column.name}" has another type')
    arriving = tuple(column.name for column in relation.columns)
    for wanted in plan.columns:
        if wanted.name not in arriving:
            raise _changed(
                table, f'column "{wanted.name}" no longer comes: dropped, renamed, or left out by the publication'
            )
    _refuse_other_identity(relation, plan)
    return plan.source_of(arriving)


def unpublished(table: Table) -> SchemaConflictError:
    """A table that was copied, and whose changes do not come any more."""
    return SchemaConflictError(
        f"{table.full_name}{', or a partition of it,' if table.partitioned else ''} was dropped, or is not in the publication "
        "any more: changes since then are missing",
        hint=f"If it is still there, copy it again: penstock resync PIPE.toml {table.full_name}",
    )


def _refuse_other_identity(relation: Relation, plan: Plan) -> None:
    """Old tuples must hold what tells rows apart. With REPLICA IDENTITY NOTHING there are only inserts."""
    if relation.replica_identity == "n" or plan.shape is Shape.HISTORY:
        return
    sent = {column.name for column in relation.columns if column.in_key or relation.replica_identity == "f"}
    needed = range(len(plan.columns)) if plan.keyless else [each for each in plan.key if each not in plan.moving]
    missing = [plan.columns[each].name for each in needed if plan.columns[each].name not in sent]
    if missing:
        raise _changed(plan.table, f'its replica identity no longer holds column "{missing[0]}"')


def _changed(table: Table, what: str) -> SchemaConflictError:
    return SchemaConflictError(
        f"{table.full_name} has changed in the source since it was copied: {what}",
        hint=f"Copy it again: penstock resync PIPE.toml {table.full_name}",
    )
