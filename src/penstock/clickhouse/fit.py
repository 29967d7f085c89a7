"""Compares a table that is there with the plan that is to use it. ClickHouse itself brings expressions to one form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from penstock.errors import TargetConflictError
from penstock.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.clickhouse.client import Client
    from penstock.plan import Plan

_DATABASE = "select count() from system.databases where name = {database:String}"
_TABLE = """
select engine, engine_full, sorting_key, partition_key, comment from system.tables
where database = {database:String} and name = {name:String}"""
_COLUMNS = """
select name, type, default_kind, default_expression from system.columns
where database = {database:String} and table = {name:String}"""
_IDENTITY = "select uuid from system.tables where database = {database:String} and name = {name:String}"
_NAMED = """
select name from system.tables where database = {database:String} and toString(uuid) = {id:String}
order by name = {mostly:String} desc limit 1"""
_FORMATTED = "select formatQuerySingleLineOrNull(arrayJoin({queries:Array(String)}))"
_ARGUMENTS = re.compile(r"ReplacingMergeTree\((.*?)\)(?: PRIMARY KEY| PARTITION BY| ORDER BY|$)")
_FAMILY = re.compile(r"(Replicated|Shared)?ReplacingMergeTree")


class _Table(NamedTuple):
    engine: str
    engine_full: str
    sorting_key: str
    partition_key: str
    comment: str


class _Column(NamedTuple):
    type: str
    default_kind: str
    default_expression: str


def database_exists(client: Client, database: str) -> bool:
    """Whether there is a database of that name."""
    ((count,),) = client.rows(_DATABASE, {"database": database}, subject=database)
    return bool(count)


def table_exists(client: Client, database: str, name: str) -> bool:
    """Whether there is a table or view of that name."""
    return _read(client, database, name) is not None


def identity(client: Client, database: str, name: str) -> str:
    """The table's own id, which stays when it is renamed or exchanged; empty where there is no such table."""
    rows = client.rows(_IDENTITY, {"database": database, "name": name}, subject=f"{database}.{name}")
    return str(rows[0][0]) if rows else ""


def require_own(client: Client, database: str, plan: Plan, table_id: str, *, formerly: str = "") -> None:
    """See that the plan's target, or what it was ``formerly`` called, is the table with this id. Raises TargetConflictError."""
    found = {each: identity(client, database, each) for each in (formerly, plan.target) if each}
    if table_id in filter(None, found.values()):
        return
    other = next((name for name, its_id in found.items() if its_id), "")
    again = f"penstock resync PIPE.toml {plan.table.full_name}"
    if not other:
        raise TargetConflictError(
            f"{database}.{formerly or plan.target} is gone from the destination", hint=f"Copy the table again: {again}"
        )
    raise TargetConflictError(
        f"{database}.{other} is another table than the one that this pipe has filled",
        hint=f"Put the former one back; or rename or drop this one, and copy again: {again}",
    )


def name_of(client: Client, database: str, table_id: str, *, mostly: str) -> str:
    """What the table with this id is called now; empty where it is gone. ``mostly``: which one it is where all ids are zero."""
    wanted = {"database": database, "id": table_id, "mostly": mostly}
    found = client.rows(_NAMED, wanted, subject=f"{database}.{mostly}")
    return str(found[0][0]) if found else ""


def is_foreign(client: Client, database: str, view: str, *, comment: str) -> bool:
    """Whether something has the view's name that is no view with this comment."""
    found = _read(client, database, view)
    return found is not None and (found.engine, found.comment) != ("View", comment)


def _read(client: Client, database: str, name: str) -> _Table | None:
    rows = client.rows(_TABLE, {"database": database, "name": name}, subject=f"{database}.{name}")
    return _Table(*rows[0]) if rows else None


def differences(client: Client, database: str, plan: Plan, *, key: Sequence[str]) -> list[str]:
    """What keeps the plan from using its table, one phrase a difference. Columns that the plan does not have may be there."""
    found = _read(client, database, plan.target)
    if found is None:
        return ["it is gone"]
    rows = client.rows(_COLUMNS, {"database": database, "name": plan.target}, subject=f"{database}.{plan.target}")
    columns = {name: _Column(*rest) for name, *rest in rows}
    problems = _engine(plan, found)
    if problems:
        return problems
    problems = _columns(plan, columns)
    if plan.shape is not Shape.NULL:
        problems += _keys(client, plan, found, key)
    return problems


def column_types(client: Client, database: str, target: str) -> dict[str, str]:
    """The types of a table's columns by name; empty where there is no table."""
    rows = client.rows(_COLUMNS, {"database": database, "name": target}, subject=f"{database}.{target}")
    return {name: type_ for name, type_, *_ in rows}


def _engine(plan: Plan, found: _Table) -> list[str]:
    if plan.shape is Shape.NULL:
        return [] if found.engine == "Null" else [f"its engine is {found.engine}, needed Null"]
    arguments = [name for name, _ in plan.wire_metadata[: 1 if plan.event_log else 2]]
    needed = f"ReplacingMergeTree({', '.join(arguments)})"
    if not _FAMILY.fullmatch(found.engine):
        return [f"its engine is {found.engine}, needed {needed}"]
    match = _ARGUMENTS.search(found.engine_full)
    given = [each.strip(" `") for each in match[1].split(",")] if match else []
    if found.engine == "ReplicatedReplacingMergeTree":
        given = [each for each in given if not each.startswith("'")]  # the path and the replica's name
    return [] if given == arguments else [f"its engine is ReplacingMergeTree({', '.join(given)}), needed {needed}"]


def _columns(plan: Plan, columns: dict[str, _Column]) -> list[str]:
    needed = [*((column.name, column.clickhouse) for column in plan.columns), *plan.wire_metadata]
    problems = []
    for name, type_ in needed:
        column = columns.get(name)
        if column is None:
            problems.append(f"column {name} is missing, needed {type_}")
        elif column.type != type_:
            problems.append(f"column {name} is {column.type}, needed {type_}")
        elif column.default_kind in ("MATERIALIZED", "ALIAS"):
            problems.append(f"column {name} is {column.default_kind}, and cannot be written")
    return problems


def _keys(client: Client, plan: Plan, found: _Table, key: Sequence[str]) -> list[str]:
    needed_sorting = ", ".join(key)
    sorting, wanted_sorting, partition, wanted_partition = _tuples(
        client, found.sorting_key, needed_sorting, found.partition_key, plan.partition_by
    )
    problems = []
    if sorting != wanted_sorting:
        problems.append(f"its sorting key is {found.sorting_key or 'empty'}, needed {needed_sorting}")
    if partition != wanted_partition:
        problems.append(f"its partition key is {found.partition_key or 'empty'}, needed {plan.partition_by or 'none'}")
    return problems


def _tuples(client: Client, *expressions: str) -> list[str]:
    """Expressions in one form: with or without a tuple around, however spaced and quoted; as they are where they are none."""
    rows = client.rows(_FORMATTED, {"queries": [f"select tuple({each})" for each in expressions]})
    return [
        (formatted or each).replace("tuple(", "(").replace("((", "(").replace("))", ")")
        for each, (formatted,) in zip(expressions, rows, strict=True)
    ]
