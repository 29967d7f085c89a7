"""Changes of tables that hold rows already. Each may be repeated after a crash at any instant: what is done already is left out.

A column that was dropped at the source stays, and gives way when its name is used again. Every step is an ALTER of its own: where one
ALTER renames X to Z and Y to X, ClickHouse mixes up parts that are older than X, which cannot be read afterwards.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING

from penstock.clickhouse import ddl, fit
from penstock.clickhouse.client import quoted
from penstock.errors import DestinationUnavailableError
from penstock.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from penstock.clickhouse.client import Client
    from penstock.plan import Plan, PlanColumn

_AT_ONCE = {"alter_sync": 2, "mutations_sync": 2}
_RENAME = "rename column"
_MERGED = ("max_bytes_to_merge_at_max_space_in_pool", "max_bytes_to_merge_at_min_space_in_pool")
NONE = 1  # byte: no part is as small
_MERGING = "select round(100 * progress) from system.merges where database = {database:String} and table = {table:String} limit 1"
_RENAMING = """
select parts_to_do from system.mutations where database = {database:String} and table = {table:String}
and not is_done and command ilike '%rename column%' limit 1"""
_LIMIT = re.compile(rf"\b({'|'.join(_MERGED)}) = ('(?:[^'\\]|\\.)*'|[^\s,]+)")
_LIMITED = """
select name, toString(uuid), engine_full from system.tables
where database = {database:String} and engine_full like '%max_bytes_to_merge_at%'"""
_ENGINE = "select engine_full from system.tables where database = {database:String} and name = {name:String}"
POLL_SECONDS = 0.05
MERGE_SECONDS = 10.0  # so long is one waited for before it is told


def alter(  # noqa: PLR0913  (a change has these parts)
    client: Client,
    database: str,
    plan: Plan,
    *,
    added: Sequence[tuple[int, PlanColumn]],
    dropped: Sequence[str],
    renamed: Sequence[tuple[str, str]],
    retyped: Sequence[PlanColumn],
    defaults: Mapping[str, str],
    own: Mapping[str, str],
) -> None:
    """Bring the table of ``plan``, the new one, to its columns. ``defaults`` are expressions for rows that are older than a column.

    ``own`` are the table's ``limits``, kept from before the first attempt.
    ``added`` come with their numbers at the source. To be called with no insert into the table under way.
    """
    if plan.shape is Shape.NULL:  # it cannot rename; there is nothing to lose
        dropped = [*dropped, *(old for old, _ in renamed)]
        places = {column.name: (0, column) for column in plan.columns}
        added, renamed = [*added, *(places[new] for _, new in renamed)], ()
    present = fit.column_types(client, database, plan.target)
    steps = [f"drop column {quoted(name)}" for name in dropped if name in present]
    left = {name for name in present if name not in dropped}
    steps += _renames(renamed, left)
    steps += _additions(plan, added, left, defaults)
    steps += [
        f"modify column {quoted(column.name)} {column.clickhouse}"
        for column in retyped
        if present.get(column.name) != column.clickhouse
    ]
    renames = any(step.startswith(_RENAME) for step in steps) or plan.target in dict(stopped(client, database))
    with _without_merges(client, database, plan.target, own) if renames else contextlib.nullcontext():
        for step in steps:
            _alter(client, database, plan.target, step)


def _alter(client: Client, database: str, target: str, step: str) -> None:
    client.define(f"alter table {ddl.qualified(database, target)} {step}", _AT_ONCE, subject=f"{database}.{target}")


@contextlib.contextmanager
def _without_merges(client: Client, database: str, target: str, own: Mapping[str, str]) -> Iterator[None]:
    """A merge that begins while a column is renamed loses its values in many releases of ClickHouse (its issue 80648).

    Raises DestinationUnavailableError where one that runs takes long: it is told, and the pipe can be stopped meanwhile.
    """
    _alter(client, database, target, f"modify setting {', '.join(f'{name} = {NONE}' for name in _MERGED)}")
    try:
        _wait(
            client,
            database,
            target,
            _MERGING,
            "a column is to be renamed, which waits for a merge that is {:.0f} % done",
        )
        yield
    finally:
        let_merge(client, database, target, own)


def let_merge(client: Client, database: str, target: str, own: Mapping[str, str]) -> None:
    """Let merges go on that were stopped, once no rename is under way, by the table's ``own`` limits. May be repeated."""
    _wait(client, database, target, _RENAMING, "a column is being renamed, in {} parts yet")
    if kept := [f"{name} = {value}" for name, value in own.items()]:
        _alter(client, database, target, f"modify setting {', '.join(kept)}")
    if left := [name for name in _MERGED if name not in own]:
        _alter(client, database, target, f"reset setting {', '.join(left)}")


def _wait(client: Client, database: str, target: str, query: str, why: str) -> None:
    ends_at = time.monotonic() + MERGE_SECONDS
    while running := client.rows(query, {"database": database, "table": target}):
        if time.monotonic() > ends_at:
            raise DestinationUnavailableError(
                f"{database}.{target}: {why.format(*running[0])}",
                hint="It is in system.merges or system.mutations. Penstock tries again.",
            )
        time.sleep(POLL_SECONDS)


def limits(client: Client, database: str, target: str) -> dict[str, str]:
    """The table's own settings of how much is merged, as they are written; what a crash has left of ours is none."""
    found = client.rows(_ENGINE, {"database": database, "name": target})
    return {name: value for (engine,) in found for name, value in _given(engine) if value != str(NONE)}


def stopped(client: Client, database: str) -> list[tuple[str, str]]:
    """Tables whose merges a crash has left stopped: names and ids."""
    found = client.rows(_LIMITED, {"database": database})
    return [(name, table_id) for name, table_id, engine in found if str(NONE) in dict(_given(engine)).values()]


def _given(engine: str) -> list[tuple[str, str]]:
    """The limits among the settings at the end of an engine's description."""
    return [(found[1], found[2]) for found in _LIMIT.finditer(engine)]


def _renames(renamed: Sequence[tuple[str, str]], left: set[str]) -> Iterator[str]:
    for old, new in renamed:
        if old in left:
            if new in left:
                yield f"{_RENAME} {quoted(new)} to {quoted(_aside(new, left))}"
            yield f"{_RENAME} {quoted(old)} to {quoted(new)}"
            left.discard(old)
            left.add(new)


def _additions(
    plan: Plan, added: Sequence[tuple[int, PlanColumn]], left: set[str], defaults: Mapping[str, str]
) -> Iterator[str]:
    names = [column.name for column in plan.columns]
    for number, column in sorted(added, key=lambda each: names.index(each[1].name)):
        if column.name in left:
            aside = f"{column.name}_before_{number}"
            if aside in left:
                continue  # done before
            yield f"{_RENAME} {quoted(column.name)} to {quoted(aside)}"
        default = f" default {defaults[column.name]}" if column.name in defaults else ""
        place = names.index(column.name)
        after = f" after {quoted(names[place - 1])}" if place else " first"
        yield f"add column {quoted(column.name)} {column.clickhouse}{default}{after}"
        left.add(column.name)


def _aside(name: str, left: set[str]) -> str:
    number = 1
    while f"{name}_before_{number}" in left:
        number += 1
    return f"{name}_before_{number}"


def put_in_place(client: Client, database: str, plan: Plan, *, fresh: str, fresh_id: str, views: bool) -> None:
    """Put the table ``fresh``, known by its id, in the place of the plan's target at once, and drop the one that was there.

    The view does not show a column that the two tables have differently while it cannot tell which of them it reads.
    """
    views = views and plan.shape is Shape.CURRENT
    if fit.identity(client, database, plan.target) != fresh_id:
        old, new = fit.column_types(client, database, plan.target), fit.column_types(client, database, fresh)
        if not old:
            ddl.rename(client, database, fresh, plan.target)
        else:
            alike = {name for name, type_ in old.items() if new.get(name) == type_}
            if views and any(column.name in alike for column in plan.columns):
                ddl.ensure_view(client, database, plan, only=alike)
            ddl.exchange(client, database, plan.target, fresh)
    if views:
        ddl.ensure_view(client, database, plan)
    ddl.drop_table(client, database, fresh)


def move(client: Client, database: str, old: str, new: str) -> bool:
    """Give a table another name, where that is free; whether it has it. Its view does not come along: it is dropped."""
    there = {name for name in (old, new) if fit.table_exists(client, database, name)}
    if there == {old}:
        ddl.rename(client, database, old, new)
        there = {new}
    if old not in there:
        drop_view(client, database, old)
    return there == {new}


def drop_view(client: Client, database: str, target: str) -> None:
    """Drop the view of a table, if it is ours."""
    name = ddl.view_name(target)
    if fit.table_exists(client, database, name) and not fit.is_foreign(
        client, database, name, comment=ddl.VIEW_COMMENT
    ):
        ddl.drop_table(client, database, name)
