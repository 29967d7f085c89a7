"""What a change of a table's definition means for the table in ClickHouse. Only thinking: ``changes.py`` acts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from penstock.errors import SchemaConflictError
from penstock.pipeline.versions import by_number, key_numbers, type_of
from penstock.plan import Shape
from penstock.typemap import NUMERIC_UNLIMITED, numeric_modifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.batch import Relation
    from penstock.plan import Plan, PlanColumn
    from penstock.table import Column, Table, Type


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
    """For each column of the relation's tuples, its index in the plan, or -1. Raises SchemaConflictError where they do not fit."""
    table = plan.table
    known = {column.name: type_of(column) for column in table.columns}
    for column in relation.columns:
        if column.name in plan.excluded or column.name in table.left_out:
            continue
        if column.name not in known:
            raise changed(table, f'column "{column.name}" is new')
        if known[column.name] != (column.type_oid, column.modifier):
            raise changed(table, f'column "{column.name}" has another type')
    arriving = tuple(column.name for column in relation.columns)
    for wanted in plan.columns:
        if wanted.name not in arriving:
            raise changed(
                table, f'column "{wanted.name}" no longer comes: dropped, renamed, or left out by the publication'
            )
    _refuse_other_identity(relation, plan)
    return plan.source_of(arriving)


def fits(relation: Relation, plan: Plan) -> bool:
    """Whether the relation's rows can be decoded for the plan."""
    try:
        tuple_source(relation, plan)
    except SchemaConflictError:
        return False
    return True


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
        raise changed(plan.table, f'its replica identity no longer holds column "{missing[0]}"')


def changed(table: Table, what: str) -> SchemaConflictError:
    """The table cannot go on as it was copied."""
    return SchemaConflictError(
        f"{table.full_name} has changed in the source since it was copied: {what}",
        hint=f"Copy it again: penstock resync PIPE.toml {table.full_name}",
    )


def refused(table: Table, column: str) -> SchemaConflictError:
    """A change of a type that may have changed the values."""
    return SchemaConflictError(
        f'{table.full_name}: column "{column}" has another type, and its values cannot be taken over as they are',
        hint=f'Copy it again: penstock resync PIPE.toml {table.full_name}; with on_type_change = "resync" that is done by itself.',
    )


# What to do


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a table in ClickHouse. ``again`` says why it has to be copied anew, and then nothing else is done."""

    added: tuple[tuple[int, PlanColumn], ...] = ()  # with their numbers
    dropped: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    retyped: tuple[PlanColumn, ...] = ()
    attached: tuple[int, ...] = ()  # partitions that may have brought rows along
    reread: bool = False  # values changed without a row in the stream: every row is read again
    again: str = ""
    refused: str = ""  # the column whose values would be lost or wrong: only with the user's leave

    @property
    def touches(self) -> bool:
        """Whether ClickHouse's table changes."""
        return bool(self.added or self.dropped or self.renamed or self.retyped)


def change(old: Plan, new: Plan, *, truncated_by: frozenset[str] = frozenset(), ignore_lost: bool = False) -> Change:
    """What leads from one version of a table to the next.

    ``truncated_by`` are the transactions of the TRUNCATEs that the stream has brought. ``ignore_lost``: rows of partitions that are
    gone stay.
    """
    before, after = _planned(old), _planned(new)
    common = [number for number in before if number in after]
    pairs = [(before[number], after[number]) for number in common]
    added = tuple((number, after[number]) for number in after if number not in before)
    renamed = tuple((one.name, other.name) for one, other in pairs if one.name != other.name)
    dropped = tuple(before[number].name for number in before if number not in after)
    retyped = tuple(other for one, other in pairs if one.clickhouse != other.clickhouse)
    changes = Change(added, dropped, renamed, retyped)
    types = _types(old, new)
    if again := _needs_copy(old, new, changes):
        return Change(again=again)
    if refused := [name for name, kind in types.items() if kind == "other"]:
        return Change(refused=refused[0])
    if moved := [name for name, kind in types.items() if kind == "moved"]:
        return Change(again=f'the values of column "{moved[0]}" were rewritten with another time zone')
    if new.shape is not Shape.CURRENT:
        return changes
    rewritten = _content_changed(old.table, new.table, added, truncated_by)
    attached = tuple(_attached(old.table, new.table)) if new.table.partitioned else ()
    again = "" if ignore_lost else _lost(old.table, new.table, truncated_by)
    if ((rewritten or attached) and new.at_seam) or (rewritten and new.table.partitioned):
        again = "its rows were rewritten, or a partition was attached"
    return Change(again=again) if again else replace(changes, attached=attached, reread=rewritten)


def _attached(old: Table, new: Table) -> set[int]:
    """Partitions that may have brought rows along: new ones, and those that were away meanwhile."""
    known, before = dict(old.storage), dict(old.joined)
    return {oid for oid, _ in new.storage if oid not in known} | {
        oid for oid, joined in new.joined if oid in known and before.get(oid, joined) != joined
    }


def _lost(old: Table, new: Table, truncated_by: frozenset[str]) -> str:
    """How rows of partitions went without a word in the stream: it tells of what is done to the root only."""
    before, after = dict(old.storage), dict(new.storage)
    if not old.partitioned:
        return ""
    if before.keys() - after.keys():
        return "a partition was detached or dropped"
    if _attached(old, new) & before.keys():
        return "a partition was detached, and attached again"
    return "a partition was truncated or rewritten" if _has_new_storage(old, new, truncated_by) else ""


def _has_new_storage(old: Table, new: Table, truncated_by: frozenset[str]) -> bool:
    """Whether a relation has other storage, and no TRUNCATE of the whole table is the reason."""
    after, stamps = dict(new.storage), {leaf.oid: leaf.stamp for leaf in new.leaves}
    changed_ones = [oid for oid, filenode in old.storage if oid in after and after[oid] != filenode]
    return any(stamps.get(oid) not in truncated_by for oid in changed_ones)


def _planned(plan: Plan) -> dict[int, PlanColumn]:
    return {plan.table.column(column.name).number: column for column in plan.columns}


def _needs_copy(old: Plan, new: Plan, changes: Change) -> str:
    """Why ClickHouse's table cannot be altered into the new one."""
    if old.shape is Shape.NULL:
        return ""
    if old.table.row_filters != new.table.row_filters:
        return "the publication has another row filter for it"
    keys = [[plan.table.column(plan.columns[index].name).number for index in plan.key] for plan in (old, new)]
    if keys[0] != keys[1] or key_numbers(old.table) != key_numbers(new.table):
        return "its key has changed"
    in_key = {plan.columns[index].name for plan in (old, new) for index in plan.key}
    touched = {name for pair in changes.renamed for name in pair} | {column.name for column in changes.retyped}
    if in_key & touched:
        return "a column of its key was renamed or has another type"
    return _names_move(old, changes)


def _names_move(old: Plan, changes: Change) -> str:
    """A name that goes from one column to another cannot be told from its old self after a crash, except where that was dropped."""
    taken = {column.name for column in old.columns}
    if taken & {name for _, name in changes.renamed}:
        return "columns have swapped their names"
    if (taken - set(changes.dropped)) & {column.name for _, column in changes.added}:
        return "a column has the name that another one had"
    return ""


def _content_changed(
    old: Table, new: Table, added: Sequence[tuple[int, PlanColumn]], truncated_by: frozenset[str]
) -> bool:
    """Whether rows have other values without a change of theirs in the stream: a column was altered, and the storage is new."""
    if any(number <= old.numbers for number, _ in added):
        return True  # it was generated before: there are values
    rewritten = _has_new_storage(old, new, truncated_by)
    stamps = {column.number: column.stamp for column in old.columns}
    return rewritten and (bool(added) or any(stamps.get(each.number, each.stamp) != each.stamp for each in new.columns))


# Types

_WIDER = {
    ("int2", "int4"),
    ("int2", "int8"),
    ("int4", "int8"),
    ("float4", "float8"),
    ("varchar", "text"),
    ("varchar", "varchar"),
    ("timestamp", "timestamptz"),
}
_DIGITS = {"int2": 5, "int4": 10, "int8": 19}


def _types(old: Plan, new: Plan) -> dict[str, str]:
    """The columns whose PostgreSQL type changed: ``wider`` loses nothing, ``moved`` has to be read again, ``other`` is anything else."""
    before, after = by_number(old.table), by_number(new.table)
    kept = {column.name: column for column in new.columns}
    found = {}
    rewritten = dict(old.table.storage) != dict(new.table.storage)
    for number, column in after.items():
        if column.name not in kept or number not in before or type_of(before[number]) == type_of(column):
            continue
        moved = before[number].type.base.name == "timestamp" and column.type.base.name == "timestamptz" and rewritten
        found[column.name] = "moved" if moved else "wider" if _is_wider(before[number], column, kept) else "other"
    return found


def _is_wider(old: Column, new: Column, kept: dict[str, PlanColumn]) -> bool:
    one, other = old.type.base, new.type.base
    target = kept[new.name].clickhouse
    if (one.oid, one.modifier) == (other.oid, other.modifier):
        return True  # a domain
    if other.name == "numeric":
        return "Decimal(" in target and _fits(one, other)
    if one.kind.value == "enum":
        return other.name in ("text", "varchar") and other.modifier < 0
    if (one.name, other.name) == ("varchar", "varchar"):
        return other.modifier < 0 or 0 <= one.modifier <= other.modifier
    return (one.name, other.name) in _WIDER


def _fits(one: Type, other: Type) -> bool:
    """Whether a numeric holds every value of another, or of an integer type, with all its digits."""
    whole, scale = _digits(other)
    if one.name in _DIGITS:
        return _DIGITS[one.name] <= whole
    if one.name != "numeric" or (one.modifier < 0 <= other.modifier):
        return False
    old_whole, old_scale = _digits(one)
    return old_whole <= whole and 0 <= old_scale <= scale


def _digits(type_: Type) -> tuple[int, int]:
    """Digits before and after the point that ClickHouse's column holds."""
    precision, scale = numeric_modifier(type_.modifier) or NUMERIC_UNLIMITED
    return precision - scale, scale
