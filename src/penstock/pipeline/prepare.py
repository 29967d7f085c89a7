"""What has to be in place before a pipe can flow: plans, the destination's tables, publication and slot.

Everything here may be repeated after a crash at any line. Blocking; runs in a thread.
"""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from penstock.clickhouse import capabilities, ddl
from penstock.errors import ConfigError, NotYetError, SlotError, TableError
from penstock.language import phrase
from penstock.lsn import Lsn
from penstock.pipeline import failover, publishing
from penstock.pipeline.alteration import let_merge
from penstock.pipeline.checkpoint import LEFT_OUT, PipeRecord, TableRecord
from penstock.pipeline.enlist import claim, first, go_on
from penstock.pipeline.epochs import Epochs
from penstock.pipeline.lifecycle import State
from penstock.pipeline.older import as_stored, narrower
from penstock.pipeline.versions import from_json
from penstock.plan import Plan, Shape, compile_plan
from penstock.postgres import catalog, slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.clickhouse.client import Client
    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import Store
    from penstock.postgres.connection import Connection
    from penstock.postgres.waiting import Waiting
    from penstock.table import Table
    from penstock.typemap import Capabilities

log = structlog.get_logger()

SHOWN = 20  # of the names that there are


@dataclass(frozen=True, slots=True)
class Prepared:
    """A pipe that is ready to flow."""

    record: PipeRecord
    tables: tuple[tuple[Plan, TableRecord], ...]
    refused: tuple[tuple[str, TableError], ...]  # tables that cannot be followed at all, by name
    fresh_slot: bool  # made just now, after the publication
    server: Capabilities
    seen: Lsn  # the source's position behind all that the catalog said
    unpublished: frozenset[int]  # tables, by oid, that are published while the pipe runs


def refuse_not_yet(pipe: Pipe) -> None:
    """Raise NotYetError for settings that are known but not built."""
    wanted = {
        "pipe.mode": pipe.pipe.mode != "cdc",
    }
    for setting, is_set in wanted.items():
        if is_set:
            raise NotYetError(f"{setting} is set, and this version does not have it yet", hint=f"Leave {setting} out.")


@dataclass(frozen=True, slots=True)
class Unknown:
    """What a definition names and the source does not have. ``near`` is a name that it has, and that is nearly the same."""

    where: str  # the key that names it
    name: str
    near: str
    names: tuple[str, ...]  # some that the source has

    @property
    def problem(self) -> str:
        """What is the matter."""
        if self.name:
            return phrase("{key} names {name}, and the source has no such table", key=self.where, name=self.name)
        return phrase("no table of the source matches {key}", key=self.where)

    @property
    def hint(self) -> str:
        """What there is instead."""
        if self.near:
            return phrase("Did you mean {name}?", name=self.near)
        if not self.names:
            return phrase("There are no tables that the role can see.")
        return phrase("There are {names}. A pattern is schema.table, with * for anything.", names=", ".join(self.names))

    def error(self) -> ConfigError:
        """For a pipe that is to begin."""
        return ConfigError(self.problem, hint=self.hint)


def read_tables(pipe: Pipe, connection: Connection) -> tuple[list[Table], list[Unknown]]:
    """The source's tables that belong to the pipe, and what its definition names that is not there: wrong, where it never was."""
    every = catalog.read_tables(connection, lambda _name: True, pipe.publication)
    names = [table.full_name for table in every]
    exact = [each for each in pipe.tables.include if not set("*?[") & set(each)]
    wrong = [
        Unknown(f"tables.{where}", name, "".join(difflib.get_close_matches(name, names, n=1)), tuple(names[:SHOWN]))
        for where, wanted in (("include", exact), ("options", list(pipe.tables.options)))
        for name in wanted
        if name not in names
    ]
    tables = [table for table in every if pipe.tables.matches(table.full_name)]
    if not (tables or wrong):
        wrong.append(Unknown("tables.include", "", "", tuple(names[:SHOWN])))
    return tables, wrong


def compile_all(
    pipe: Pipe, tables: Sequence[Table], server: Capabilities
) -> tuple[list[Plan], list[tuple[str, TableError]]]:
    """Plans for the tables that can be followed, and those that cannot. Raises ConfigError for settings that do not fit."""
    plans: list[Plan] = []
    refused: list[tuple[str, TableError]] = []
    for table in tables:
        try:
            plans.append(compile_plan(table, pipe, server))
        except TableError as error:
            refused.append((table.full_name, error))
    _refuse_clashes(plans, views=pipe.destination.views)
    return plans, refused


def _refuse_clashes(plans: Sequence[Plan], *, views: bool) -> None:
    taken: dict[str, Plan] = {}
    for plan in plans:
        for name in ddl.names(plan, views=views):
            other = taken.setdefault(name, plan)
            if other is not plan:
                both = f"{other.table.full_name} and {plan.table.full_name}"
                ways = "a target in the options of one of them."
                raise ConfigError(
                    f'{both} would both be "{name}" in the destination',
                    hint=f'Set target = "{{schema}}_{{table}}" in [tables], or {ways}'
                    if other.target == plan.target
                    else f"One is the view of the other: set views = false in [destination], or {ways}",
                )


def prepare(pipe: Pipe, store: Store, connection: Connection, client: Client, waiting: Waiting) -> Prepared:
    """Bring both ends into the state in which the stream can begin. Raises what the operator must mend.

    A table that was there before goes on at the version it was at, whatever the catalog says by now: the stream will come to that.
    Tables that are new to a pipe that has run before are taken in while it runs (``arrivals.py``).
    """
    refuse_not_yet(pipe)
    server = capabilities.ask(client)
    ddl.ensure_database(client, pipe.database)
    failover.require_place(pipe, connection)
    before = store.pipe(pipe.name)
    if before is not None and before.position:
        failover.settle(pipe, store, (connection, client), before)
    known = {record.oid: record for record in store.tables(pipe.name)}
    let_merge(client, pipe.database, known.values())
    now, wrong = read_tables(pipe, connection)
    for unknown in wrong:
        if not known:
            raise unknown.error()
        log.warning("table is gone", why=unknown.problem, fix=unknown.hint)  # the others go on
    plans, refused = compile_all(pipe, [table for table in now if not known or table.oid in known], server)
    tables = []
    for plan in plans:
        seen = known.get(plan.table.oid)
        if seen is None:
            tables.append(first(pipe, store, client, as_stored(client, pipe, plan, server)))
        else:
            seen.hint = "" if seen.left_out else seen.hint
            tables.append(go_on(pipe, store, client, (plan, seen), server))
    for finding in narrower(pipe, [plan for plan, _ in tables], server):
        log.info("narrower types", server=server.version, what=finding.problem, fix=finding.fix.advice)
    left = [record for oid, record in known.items() if oid not in {plan.table.oid for plan in plans}]
    dropped = _dropped(pipe, connection, left, server)
    tables += [go_on(pipe, store, client, each, server) for each in dropped]
    left = [record for record in left if record.oid not in {each.oid for _, each in dropped}]
    for each in left:
        claim(pipe, store, client, each, server)
    _leave_out(pipe, store, left)
    publishing.withdraw(pipe, connection, left, plans, waiting)
    publishing.set_aside_unpublished(
        pipe, store, connection, [(plan.table, known[plan.table.oid]) for plan in plans if known]
    )
    records = {record.oid: record for _, record in tables}
    unpublished = publishing.publish(pipe, store, connection, (plans, records), waiting)
    record, fresh = _pipe_record(pipe, store, connection, waiting)
    return Prepared(record, tuple(tables), tuple(refused), fresh, server, slot.insert_lsn(connection), unpublished)


def _dropped(
    pipe: Pipe, connection: Connection, left: Sequence[TableRecord], server: Capabilities
) -> list[tuple[Plan, TableRecord]]:
    """Tables that were copied and are gone from the source: the stream has still to come to their last rows, and to that they are gone."""
    there = catalog.names(connection) if left else {}
    found = []
    for record in left:
        copied = record.state in (State.CATCHING_UP, State.STREAMING)
        if copied and record.table and record.oid not in there and pipe.tables.matches(record.full_name):
            with contextlib.suppress(TableError, ConfigError):  # by settings that do not fit it any more
                found.append((compile_plan(from_json(record.table), pipe, server), record))
    return found


def _leave_out(pipe: Pipe, store: Store, left: Sequence[TableRecord]) -> None:
    """Tables that are excluded now, or can no longer be followed: their changes are not read, so they are copied anew if they come back."""
    for record in left:
        if record.state is not State.WAITING or record.begun:
            record.set_back(beside=pipe.tables.options_for(record.full_name).shape != Shape.NULL.value)
            store.save_parts(pipe.name, record.oid, [])
        if not record.left_out:
            record.hint = LEFT_OUT
            store.save_table(pipe.name, record)
            log.info("table left out", table=record.full_name, target=record.target)


def _pipe_record(pipe: Pipe, store: Store, connection: Connection, waiting: Waiting) -> tuple[PipeRecord, bool]:
    """The pipe's record, with a slot behind it; and whether the slot was made just now."""
    record = store.pipe(pipe.name)
    if record is not None and record.position:
        return record, False
    state = slot.slot_state(connection, pipe.slot)
    if state is not None and record is None and not pipe.source.slot:
        raise SlotError(
            f'the replication slot "{pipe.slot}" exists already, and there is no state of this pipe here',
            hint=f"Set PENSTOCK_HOME to where the pipe ran before; or give it up: select pg_drop_replication_slot('{pipe.slot}');",
        )
    record = PipeRecord(
        name=pipe.name,
        slot=pipe.slot,
        publication=pipe.publication,
        system_identifier=slot.system(connection).system_identifier,
        timeline=failover.timeline_of(connection),
        position=Lsn(0),
        epochs=record.epochs if record else Epochs(),
        owns_publication=not pipe.source.publication,
        owns_slot=not pipe.source.slot,
    )
    store.save_pipe(record)  # the intention, so that a crash right after the slot's creation finds its way back
    if state is None:
        record.position = slot.create_slot(connection, pipe.slot, report=waiting.report, stopped=waiting.stopped)
    else:
        record.position = state.confirmed_flush_lsn
    store.save_pipe(record)
    return record, state is None
