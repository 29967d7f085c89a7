"""A change of a table in ClickHouse, from one version to the next: begun, done, kept.

What is to be done is saved before it begins. When a crash comes in between, the next start finishes it before a row is written: rows
are of one version or the other, and what is half done fits neither. ClickHouse's own steps may be repeated (``clickhouse.alter``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from penstock.clickhouse import alter, ddl, fit, lookup
from penstock.decode import encode
from penstock.lsn import Lsn
from penstock.pipeline.evolve import changed, fingerprint
from penstock.pipeline.versions import definition, same_column, to_json
from penstock.plan import Shape
from penstock.table import Table  # noqa: TC001  (read at run time, for its JSON)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from penstock.clickhouse.client import Client
    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import TableRecord
    from penstock.pipeline.evolve import Change
    from penstock.plan import Plan, PlanColumn


@dataclass(frozen=True, slots=True)
class Alteration:
    """The version that a table is brought to."""

    table: Table
    version: int  # the place in the stream from which on rows are like it
    into: str  # the table that its rows go into then
    target: str  # the table that is read; another one while it is copied again beside
    defaults: dict[str, str]  # expressions of new columns, for rows that are older than they
    copy_again: bool  # rows are read again, to take the place of their older selves
    table_id: str = ""  # of the table itself, whatever its name
    limits: dict[str, str] = field(default_factory=dict)  # its own ones of merges, which are stopped meanwhile

    def to_json(self) -> str:
        """For keeping."""
        return _JSON.dump_json(replace(self, table=definition(self.table))).decode()

    @staticmethod
    def from_json(text: str) -> Alteration:
        """Read what ``to_json`` wrote."""
        return _JSON.validate_json(text)


_JSON = TypeAdapter(Alteration)


@dataclass(frozen=True, slots=True)
class Ways:
    """What the settings say of changes."""

    drop_columns: bool
    views: bool

    @staticmethod
    def of(pipe: Pipe) -> Ways:
        """Those of a pipe."""
        return Ways(pipe.settings.on_drop_column == "drop", pipe.destination.views)


def perform(
    client: Client, database: str, plans: tuple[Plan, Plan], step: Alteration, todo: Change, ways: Ways
) -> None:
    """Bring ClickHouse's table, and its view, from the first plan to the second. May be repeated. Raises SchemaConflictError."""
    old, new = plans
    fit.require_own(client, database, new, step.table_id, formerly=old.target)
    if old.target != new.target and not alter.move(client, database, old.target, new.target):
        raise changed(new.table, f"it was renamed, and {new.target} is taken in the destination")
    if todo.touches:
        alter.alter(
            client,
            database,
            new,
            added=todo.added,
            dropped=todo.dropped if ways.drop_columns else (),
            renamed=todo.renamed,
            retyped=todo.retyped,
            defaults=step.defaults,
            own=step.limits,
        )
    if ways.views and new.shape is Shape.CURRENT and step.into == step.target:
        ddl.ensure_view(client, database, new)


def let_merge(client: Client, database: str, records: Iterable[TableRecord]) -> None:
    """Let the merges of these tables go on, where a crash within an alteration has left them stopped."""
    ours = {each: record for record in records for each in (record.target_id, record.building_id) if each}
    for name, table_id in alter.stopped(client, database):
        if record := ours.get(table_id):
            step = Alteration.from_json(record.begun) if record.begun else None
            alter.let_merge(client, database, name, step.limits if step and step.table_id == table_id else {})


def constants(client: Client, plan: Plan, texts: Mapping[str, str]) -> dict[str, str] | None:
    """Expressions that give exactly the values with these texts, by column; left out for NULL. None where one cannot be written."""
    found = {}
    for column in plan.columns:
        if column.name not in texts:
            continue
        value = encode(column.codec, texts[column.name].encode())
        if value.null:
            continue
        constant = lookup.constant(client, column, texts[column.name], value)
        if constant is None:
            return None
        found[column.name] = constant
    return found


def keep(record: TableRecord, plan: Plan, step: Alteration, *, copy_again: bool) -> None:
    """Note in the record that it is done. ``copy_again``: every row is read again, and takes the place of its older self."""
    note(record, plan, step.target)
    record.since, record.begun = step.version, ""
    if copy_again:
        record.base, record.goal = step.version, Lsn(0)
        record.wait()


def note(record: TableRecord, plan: Plan, target: str) -> None:
    """Note in the record which version ClickHouse's table has."""
    record.full_name, record.target = plan.table.full_name, target
    record.table, record.fingerprint = to_json(plan.table), fingerprint(plan)


def with_types_of(old: Plan, new: Plan) -> Plan:
    """A column that is as it was keeps its type in ClickHouse: an older server may have given it."""
    before = {old.table.column(each.name).number: each for each in old.columns}

    def kept(column: PlanColumn) -> PlanColumn:
        now = new.table.column(column.name)
        was = before.get(now.number)
        same = was is not None and same_column(old.table.column(was.name), now)
        return replace(was, name=column.name) if was and same else column

    return replace(new, columns=tuple(kept(column) for column in new.columns))
