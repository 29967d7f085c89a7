"""Databases, tables and views of the destination: made from plans, and compared with them where they are there already.

Identifiers are quoted by ``client.quoted``; the only text of the user's that becomes SQL is ``partition_by``. Nothing here waits
for inserts: before DDL on a table its inserts must have ended (``Writer.settle``, clickhouse.md 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.clickhouse import fit
from penstock.clickhouse.client import quoted
from penstock.errors import ConfigError, SchemaConflictError, TargetConflictError
from penstock.plan import Shape

if TYPE_CHECKING:
    from collections.abc import Collection

    from penstock.clickhouse.client import Client
    from penstock.plan import Plan

VIEW_COMMENT = "made by Penstock"
_WHOLE = "lightweight_deletes_sync = 2, mutations_sync = 2"
_ANY_SIZE = "max_table_size_to_drop = 0, max_partition_size_to_drop = 0"


def ensure_database(client: Client, database: str) -> None:
    """Make the database where there is none."""
    if not fit.database_exists(client, database):
        client.define(f"create database if not exists {quoted(database)}", subject=database)


def ensure_table(client: Client, database: str, plan: Plan) -> None:
    """Make the plan's table, or see that the one that is there fits.

    Raises SchemaConflictError, which lists every difference; ConfigError where the table cannot be made with ``partition_by``.
    """
    if not fit.table_exists(client, database, plan.target) and _created(client, database, plan):
        return
    different = differences(client, database, plan)
    if different:
        raise TargetConflictError(
            f"{database}.{plan.target} exists and does not fit: {'; '.join(different)}",
            hint="Mend the table, drop it, or give this one another name: target in [tables.options]. "
            'A column that is String there can stay so: types = { column = "String" }.',
        )


def _created(client: Client, database: str, plan: Plan) -> bool:
    """Make the table; False where somebody else was faster."""
    try:
        client.define(create_statement(database, plan), subject=f"{database}.{plan.target}")
    except SchemaConflictError as error:
        if fit.table_exists(client, database, plan.target):
            return False
        if plan.partition_by:
            raise ConfigError(
                f"the table for {plan.table.full_name} cannot be made with its partition_by: {error.message}",
                hint="partition_by is a ClickHouse expression of the table's columns, such as toYYYYMM(created_at).",
            ) from None
        raise
    return True


def create_statement(database: str, plan: Plan) -> str:
    """The CREATE TABLE of a plan."""
    prefix = plan.metadata_prefix
    columns = [
        *(f"{quoted(column.name)} {column.clickhouse}" for column in plan.columns),
        *(f"{quoted(name)} {type_}" for name, type_ in plan.wire_metadata),
        f"{quoted(prefix + 'synced_at')} DateTime64(3) default now64(3)",
    ]
    statement = f"create table {qualified(database, plan.target)} ({', '.join(columns)}) engine = {_engine(plan)}"
    if plan.shape is Shape.NULL:
        return statement
    if plan.partition_by:
        statement += f" partition by {plan.partition_by}"
    statement += f" order by ({', '.join(_sorting_key(plan))})"
    if plan.partition_by or any(plan.columns[index].nullable for index in plan.key):
        statement += " settings allow_nullable_key = 1"
    return statement


def _engine(plan: Plan) -> str:
    if plan.shape is Shape.NULL:
        return "Null"
    version, is_deleted = (quoted(name) for name, _ in plan.wire_metadata[:2])
    return f"ReplacingMergeTree({version}{'' if plan.event_log else ', ' + is_deleted})"


def _sorting_key(plan: Plan) -> list[str]:
    """Events are told apart by their versions; without a key, one UPDATE makes two of one version."""
    if plan.shape is Shape.NULL:
        return []
    names = [plan.columns[index].name for index in plan.key]
    if plan.event_log:
        names += [name for name, _ in plan.wire_metadata[: 2 if plan.keyless else 1]]
    return [quoted(name) for name in names]


def fits(client: Client, database: str, plan: Plan) -> bool:
    """Whether there is a table that the plan can use."""
    return not differences(client, database, plan)


def differences(client: Client, database: str, plan: Plan) -> list[str]:
    """What keeps the plan from using the table that is there, one phrase a difference."""
    return fit.differences(client, database, plan, key=_sorting_key(plan))


def ensure_empty(client: Client, database: str, plan: Plan) -> None:
    """A first copy goes into an empty table: rows from elsewhere would win over it, or never leave. Raises SchemaConflictError."""
    if holds_rows(client, database, plan):
        raise TargetConflictError(
            f"{database}.{plan.target} holds rows already, and {plan.table.full_name} has not been copied by this pipe",
            hint="Drop or truncate that table, or give this one another name: target in [tables.options]. Then: penstock resync.",
        )


def holds_rows(client: Client, database: str, plan: Plan) -> bool:
    """Whether the plan's table has rows; a Null table holds none."""
    if plan.shape is Shape.NULL:
        return False
    table = qualified(database, plan.target)
    return bool(client.rows(f"select 1 from {table} limit 1", subject=f"{database}.{plan.target}"))  # noqa: S608 -- quoted


def view_name(target: str) -> str:
    """The name of the view that shows a table's rows as they are now."""
    return f"{target}_current"


def names(plan: Plan, *, views: bool) -> set[str]:
    """The names that a plan's table takes in the database; ``views``: the pipe makes them."""
    return {plan.target} | ({view_name(plan.target)} if views and plan.shape is Shape.CURRENT else set())


def ensure_view(client: Client, database: str, plan: Plan, only: Collection[str] | None = None) -> None:
    """Make or replace ``<target>_current`` of a plan of shape ``current``: no deleted rows, no metadata columns.

    Without a key each row is there as often as it was inserted and not deleted. One pass finds that, so that a reader never
    sees half an UPDATE; and it groups by the columns, so that a reader's conditions reach the table. ``only`` leaves out the other
    columns. Raises SchemaConflictError where something that Penstock did not make has the view's name.
    """
    view = view_name(plan.target)
    if fit.is_foreign(client, database, view, comment=VIEW_COMMENT):
        raise SchemaConflictError(
            f"{database}.{view} exists and is not Penstock's view of {plan.target}",
            hint="Rename or drop it, give the table another target, or set views = false in [destination].",
        )
    columns = ", ".join(quoted(column.name) for column in plan.columns if only is None or column.name in only)
    deleted = quoted(plan.wire_metadata[1][0])
    table = qualified(database, plan.target)
    query = f"select {columns} from {table} final where {deleted} = 0"  # noqa: S608 -- quoted
    if plan.keyless:
        copies = quoted(plan.metadata_prefix + "copies")
        query = (
            f"select {columns} from (select {columns}, sum(1 - 2 * {deleted}) as {copies} from {table} final"  # noqa: S608 -- quoted
            f" group by {columns} having {copies} > 0) array join range(toUInt64({copies})) as {copies}"
        )
    client.define(
        f"create or replace view {qualified(database, view)} as {query} comment '{VIEW_COMMENT}'",
        subject=f"{database}.{view}",
    )


def delete_versions(client: Client, database: str, plan: Plan, *, from_version: int, below: int) -> None:
    """Delete the rows with ``from_version`` ≤ version < ``below``; they are gone when it returns. A Null table holds none."""
    if plan.shape is Shape.NULL:
        return
    version = quoted(plan.wire_metadata[0][0])
    where = f"{version} >= {{first:UInt128}} and {version} < {{below:UInt128}}"
    statement = f"delete from {qualified(database, plan.target)} where {where} settings {_WHOLE}"  # noqa: S608 -- quoted and bound
    client.command(statement, {"first": from_version, "below": below}, subject=f"{database}.{plan.target}")


def truncate(client: Client, database: str, plan: Plan, *, below: int) -> None:
    """TRUNCATE at a version: what follows it in the stream stays (clickhouse.md 5)."""
    delete_versions(client, database, plan, from_version=0, below=below)


def drop_table(client: Client, database: str, name: str) -> None:
    """Drop a table of any size, or a view; nothing happens where there is none."""
    client.command(
        f"drop table if exists {qualified(database, name)} settings {_ANY_SIZE}", subject=f"{database}.{name}"
    )


def exchange(client: Client, database: str, one: str, other: str) -> None:
    """Swap two tables' names at once."""
    client.command(
        f"exchange tables {qualified(database, one)} and {qualified(database, other)}", subject=f"{database}.{one}"
    )


def rename(client: Client, database: str, old: str, new: str) -> None:
    """Give a table or view another name."""
    client.command(
        f"rename table {qualified(database, old)} to {qualified(database, new)}", subject=f"{database}.{old}"
    )


def qualified(database: str, table: str) -> str:
    """Database and table, quoted."""
    return f"{quoted(database)}.{quoted(table)}"
