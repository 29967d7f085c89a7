"""A table of the pipe: its record, and its table in the destination, before rows go into it. May be repeated after a crash at any line."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from penstock.clickhouse import alter, ddl, fit
from penstock.errors import ConfigError, SchemaConflictError, TableError
from penstock.pipeline import failpoint
from penstock.pipeline.alteration import Alteration, Ways, keep, perform, with_types_of
from penstock.pipeline.checkpoint import TableRecord
from penstock.pipeline.evolve import change, fingerprint
from penstock.pipeline.lifecycle import State
from penstock.pipeline.older import as_stored
from penstock.pipeline.versions import called, from_json, to_json
from penstock.plan import Plan, Shape, compile_plan

if TYPE_CHECKING:
    from collections.abc import Collection

    from penstock.clickhouse.client import Client
    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import Store
    from penstock.table import Table
    from penstock.typemap import Capabilities

log = structlog.get_logger()


def _new_record(plan: Plan) -> TableRecord:
    return TableRecord(plan.table.oid, plan.table.full_name, plan.target, fingerprint(plan), table=to_json(plan.table))


def first(pipe: Pipe, store: Store, client: Client, plan: Plan) -> tuple[Plan, TableRecord]:
    """A table of a pipe that has not run before."""
    record = _new_record(plan)
    try:
        if not fit.table_exists(client, pipe.database, plan.target):
            store.save_table(pipe.name, record)  # the next start knows of which version the table is
        _make_own(client, pipe.database, plan, record)
        _view(pipe, client, plan)
    except TableError as error:
        record.fail(error)
    store.save_table(pipe.name, record)
    return plan, record


def _make_own(client: Client, database: str, plan: Plan, record: TableRecord) -> None:
    """Make the record's table, or take one that is empty. Raises TargetConflictError."""
    ddl.ensure_table(client, database, plan)
    failpoint.reached("after a table")
    ddl.ensure_empty(client, database, plan)
    record.target_id = fit.identity(client, database, plan.target)


def claim(pipe: Pipe, store: Store, client: Client, record: TableRecord, server: Capabilities) -> None:
    """A crash kept the record from knowing its table's id: one that is empty, and as it was made, gives its name up with its source.

    At the next start only: what comes by that name later is somebody else's.
    """
    if record.target_id or record.building or not record.table:
        return
    if record.state is not State.WAITING or record.left_out:
        return
    with contextlib.suppress(TableError, ConfigError):  # it is somebody else's
        plan = replace(_compiled(pipe, from_json(record.table), server), target=record.target)
        if fit.table_exists(client, pipe.database, plan.target):
            _make_own(client, pipe.database, plan, record)
            store.save_table(pipe.name, record)


def enlist(
    pipe: Pipe, store: Store, client: Client, table: Table, server: Capabilities, *, taken: Collection[str]
) -> tuple[Plan, TableRecord] | TableError:
    """A table that is new to a pipe that runs; it is copied beside, and then takes its place. ``taken`` are names in the destination."""
    try:
        plan = as_stored(client, pipe, compile_plan(table, pipe, server), server)
    except TableError as error:
        return error
    except ConfigError as error:
        return SchemaConflictError(error.message, hint=error.hint)
    record = _new_record(plan)
    try:
        if clash := ddl.names(plan, views=pipe.destination.views).intersection(taken):
            raise SchemaConflictError(
                f'{table.full_name} would be "{min(clash)}" in the destination, and another table is',
                hint="Set a target in the options of one of them.",
            )
        require_free(client, pipe.database, plan)
        record.set_back(beside=plan.shape is not Shape.NULL)
    except TableError as error:
        record.fail(error)
    store.save_table(pipe.name, record)
    return plan, record


def require_free(client: Client, database: str, plan: Plan) -> None:
    """A table that has the name already gives way only if it fits and is empty: it is somebody else's. Raises TargetConflictError."""
    if fit.table_exists(client, database, plan.target):
        ddl.ensure_table(client, database, plan)
        ddl.ensure_empty(client, database, plan)


def is_mended(client: Client, database: str, plan: Plan, record: TableRecord) -> bool:
    """Whether what the destination's table lacked is there again."""
    plan = replace(plan, target=record.target)
    if record.target_id and not fit.table_exists(client, database, plan.target):
        return False
    if record.target_id and fit.identity(client, database, plan.target) == record.target_id:
        return ddl.fits(client, database, plan)
    try:
        require_free(client, database, plan)
    except TableError:
        return False
    return True


def go_on(
    pipe: Pipe, store: Store, client: Client, seen: tuple[Plan, TableRecord], server: Capabilities
) -> tuple[Plan, TableRecord]:
    """A table of a pipe that has run before, at the version that the destination's table has."""
    plan, record = seen
    try:
        if record.state is State.WAITING and record.building:
            plan = _under_its_name(pipe, plan, record, server)
        else:
            plan = _as_it_was(pipe, client, plan, record, server)
        if record.state is State.FAILED:
            return plan, record
        if record.begun:
            plan = _finished(pipe, store, client, (plan, record), server)
        if record.fingerprint != fingerprint(plan) and record.state is not State.WAITING:
            raise SchemaConflictError(
                f"the options of {plan.table.full_name} have changed since it was copied",
                hint=f"Copy it again: penstock resync PIPE.toml {plan.table.full_name}",
            )
        plan = _in_its_place(pipe, client, plan, record)
    except TableError as error:
        record.fail(error)
    store.save_table(pipe.name, record)
    return plan, record


def _finished(pipe: Pipe, store: Store, client: Client, seen: tuple[Plan, TableRecord], server: Capabilities) -> Plan:
    """Finish what was begun before a crash; the plan of the new version."""
    was, record = seen
    step = Alteration.from_json(record.begun)
    new = with_types_of(was, _compiled(pipe, step.table, server))
    plans = (replace(was, target=record.building or record.target), replace(new, target=step.into))
    perform(client, pipe.database, plans, step, change(*plans, ignore_lost=True), Ways.of(pipe))
    if step.copy_again:
        store.save_parts(pipe.name, record.oid, [])
    keep(record, new, step, copy_again=step.copy_again)
    store.save_table(pipe.name, record)
    log.info("table altered", table=record.full_name, why="the pipe ended within it")
    return new


def _as_it_was(pipe: Pipe, client: Client, plan: Plan, record: TableRecord, server: Capabilities) -> Plan:
    """The plan of the version that is recorded, by today's settings."""
    if not record.table:
        return plan
    now = plan.table
    table = replace(from_json(record.table), estimated_rows=now.estimated_rows, estimated_bytes=now.estimated_bytes)
    was = _compiled(pipe, table, server)
    stored = as_stored(client, pipe, replace(was, target=record.building or record.target), server)
    return replace(stored, target=was.target)


def _under_its_name(pipe: Pipe, plan: Plan, record: TableRecord, server: Capabilities) -> Plan:
    """Today's plan, with the name that is recorded: the table is renamed when it is copied, and the name is free."""
    return _compiled(pipe, called(from_json(record.table), plan.table), server) if record.table else plan


def _compiled(pipe: Pipe, table: Table, server: Capabilities) -> Plan:
    try:
        return compile_plan(table, pipe, server)
    except ConfigError as error:
        raise SchemaConflictError(
            f"the options of {table.full_name} do not fit the columns with which it was copied: {error.message}",
            hint=f"Copy it again: penstock resync PIPE.toml {table.full_name}",
        ) from None


def _in_its_place(pipe: Pipe, client: Client, plan: Plan, record: TableRecord) -> Plan:
    """The plan with the name of the table that rows go into, which is there, fits, and has its view. Raises TableError."""
    database = pipe.database
    if record.building and record.building_id and fit.identity(client, database, record.target) == record.building_id:
        ddl.drop_table(client, database, record.building)  # exchanged, and not yet said so
        record.target_id, record.building, record.building_id = record.building_id, "", ""
    if plan.target != record.target:
        _move(pipe, client, plan, record)
    plan = replace(plan, target=record.building or record.target)
    if record.state is State.WAITING and record.building:
        return plan
    untouched = record.state is State.WAITING and not record.base  # and so it may be made anew
    if untouched and fit.identity(client, database, plan.target) != record.target_id:
        _make_own(client, database, plan, record)
    else:
        fit.require_own(client, database, plan, record.id_of(plan.target))
        ddl.ensure_table(client, database, plan)
    if not record.building:
        _view(pipe, client, plan)
    return plan


def _move(pipe: Pipe, client: Client, plan: Plan, record: TableRecord) -> None:
    """The settings give the table another name in the destination than it had."""
    if record.target_id:
        fit.require_own(client, pipe.database, plan, record.target_id, formerly=record.target)
    if alter.move(client, pipe.database, record.target, plan.target) or record.state is State.WAITING:
        record.target = plan.target
        if record.building and not record.building_id:  # not made yet
            record.building = record.fresh
        return
    log.warning(
        "table keeps its name in the destination",
        table=record.full_name,
        target=record.target,
        why=f"{plan.target} is there already",
    )


def _view(pipe: Pipe, client: Client, plan: Plan) -> None:
    if pipe.destination.views and plan.shape is Shape.CURRENT:
        ddl.ensure_view(client, pipe.database, plan)
