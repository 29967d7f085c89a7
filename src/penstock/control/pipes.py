"""What is done to a pipe from outside: its tables are copied again, or it is removed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from penstock.clickhouse import alter, ddl, fit
from penstock.clickhouse.client import Client
from penstock.control import queries
from penstock.control.hold import hold
from penstock.control.store import StateStore
from penstock.errors import StateError
from penstock.pipeline.alteration import let_merge
from penstock.pipeline.checkpoint import require_known
from penstock.postgres import publication, slot
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import TableRecord
    from penstock.postgres.connection import Connection


def resync(pipe: Pipe, folder: Path, names: Sequence[str]) -> str:
    """Have tables, or without names all of them, copied again, into new ones beside those that are read.

    Returns who does it: ``running`` or ``next run``.

    Raises ConfigError for a table that the pipe does not have, PipeHeldError while the pipe is starting or ending.
    """
    if queries.ask_resync(folder, pipe.name, names):
        return "running"
    with _at_rest(pipe, folder) as store:
        records = store.tables(pipe.name)
        require_known(pipe.name, names, [record.full_name for record in records])
        for record in records:
            if not names or record.full_name in names:
                record.set_back(beside=pipe.tables.options_for(record.full_name).shape != "null")
                store.save_parts(pipe.name, record.oid, [])
                store.save_table(pipe.name, record)
    return "next run"


def drop(pipe: Pipe, folder: Path, *, tables: bool, without_state: bool = False) -> list[str]:
    """Remove the slot and the publication that Penstock made, and the pipe's state; with ``tables`` its tables in the destination too.

    Returns what was removed. What is gone already is no error, so that it may be repeated. Raises StateError where there is something at
    the source, and nothing here says that it is this pipe's, unless it is to go ``without_state``.
    """
    removed: list[str] = []
    with _at_rest(pipe, folder) as store:
        record = store.pipe(pipe.name)
        with contextlib.closing(Connector(pipe.source, f"penstock {pipe.name}").connect()) as connection:
            if record is None and not without_state:
                _require_nothing(pipe, folder, connection)
            if (record is None or record.owns_slot) and not pipe.source.slot:
                slot.drop_slot(connection, pipe.slot)
                removed.append(f"slot {pipe.slot}")
            ours = (record is None or record.owns_publication) and not pipe.source.publication
            if ours and slot.drop_publication(connection, pipe.publication):
                removed.append(f"publication {pipe.publication}")
        records = store.tables(pipe.name)
        if tables:
            removed += _drop_tables(pipe, folder, records)
        elif any(each.begun for each in records):
            with _destination(pipe, folder) as client:
                let_merge(client, pipe.database, records)
        store.forget(pipe.name)
        removed.append("the pipe's state")
    return removed


def _require_nothing(pipe: Pipe, folder: Path, connection: Connection) -> None:
    """A pipe of the name may run from another folder, or on another machine: at the source both look alike."""
    found = []
    if not pipe.source.slot and slot.slot_state(connection, pipe.slot) is not None:
        found.append(f'the slot "{pipe.slot}"')
    if not pipe.source.publication and publication.is_ours(connection, pipe.publication):
        found.append(f'the publication "{pipe.publication}"')
    if found:
        raise StateError(
            f'there is no state of the pipe "{pipe.name}" in {folder}, and the source has {" and ".join(found)}: '
            "of a pipe that runs from elsewhere, or did",
            hint="Set PENSTOCK_HOME to where it runs. If it never will again: penstock drop PIPE.toml --without-state removes them.",
        )


def _drop_tables(pipe: Pipe, folder: Path, records: Sequence[TableRecord]) -> list[str]:
    """Those that the pipe has filled, but no table of somebody else's that has the name; returns what was dropped."""
    dropped = []
    with _destination(pipe, folder) as client:
        for record in records:
            ours = {record.target_id, record.building_id} - {""}
            if record.building and not record.building_id:  # it may be there nevertheless, after a crash
                ddl.drop_table(client, pipe.database, record.building)
            for name in (record.building, record.target):
                if name and fit.identity(client, pipe.database, name) in ours:
                    alter.drop_view(client, pipe.database, name)
                    ddl.drop_table(client, pipe.database, name)
                    dropped.append(name)
    return [f"table {pipe.database}.{name}" for name in dropped]


@contextlib.contextmanager
def _at_rest(pipe: Pipe, folder: Path) -> Iterator[StateStore]:
    with hold(folder, pipe.name), contextlib.closing(StateStore(folder)) as store:
        yield store


@contextlib.contextmanager
def _destination(pipe: Pipe, folder: Path) -> Iterator[Client]:
    with contextlib.closing(Client.open(pipe.destination, scratch=folder / f"{pipe.name}.scratch")) as client:
        yield client
