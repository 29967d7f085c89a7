"""What is done to a pipe that does not run: its tables are copied again, or it is removed."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING

from penstock.clickhouse import ddl
from penstock.clickhouse.client import Client
from penstock.control.hold import hold
from penstock.control.store import StateStore
from penstock.errors import ConfigError
from penstock.lsn import Lsn
from penstock.pipeline.lifecycle import State, change
from penstock.postgres import slot
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import TableRecord


def resync(pipe: Pipe, folder: Path, names: Sequence[str]) -> list[str]:
    """Have tables copied again by the next run: into fresh ones, the old ones are dropped now. Returns their names.

    Raises ConfigError for a table that the pipe does not have, PipeHeldError while the pipe runs.
    """
    with _at_rest(pipe, folder) as store:
        records = store.tables(pipe.name)
        known = sorted({record.full_name for record in records})
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known) or 'no table yet'}."
                raise ConfigError(f'the pipe "{pipe.name}" has no table {name}', hint=hint)
        chosen = [record for record in records if record.full_name in names]
        with _destination(pipe, folder) as client:
            for record in chosen:
                ddl.drop_table(client, pipe.database, record.target)
                _begin_again(store, pipe.name, record)
        return list(names)


def _begin_again(store: StateStore, pipe_name: str, record: TableRecord) -> None:
    if record.state is not State.WAITING:
        failed = record.state if record.state is State.FAILED else change(record.state, State.FAILED)
        record.state = change(failed, State.WAITING)
    record.reason = record.hint = ""
    record.goal = record.seam = record.doubt = Lsn(0)
    record.rows_copied = record.bytes_copied = 0
    store.save_parts(pipe_name, record.oid, [])
    store.save_table(pipe_name, record)


def drop(pipe: Pipe, folder: Path, *, tables: bool) -> list[str]:
    """Remove the slot and the publication that Penstock made, and the pipe's state; with ``tables`` its tables in the destination too.

    Returns what was removed. What is gone already is no error, so that it may be repeated.
    """
    removed: list[str] = []
    with _at_rest(pipe, folder) as store:
        record = store.pipe(pipe.name)
        with contextlib.closing(Connector(pipe.source, f"penstock {pipe.name}").connect()) as connection:
            if (record is None or record.owns_slot) and not pipe.source.slot:
                slot.drop_slot(connection, pipe.slot)
                removed.append(f"slot {pipe.slot}")
            if (record is None or record.owns_publication) and not pipe.source.publication:
                slot.drop_publication(connection, pipe.publication)
                removed.append(f"publication {pipe.publication}")
        if tables:
            removed += _drop_tables(pipe, folder, store.tables(pipe.name))
        store.forget(pipe.name)
        removed.append("the pipe's state")
    return removed


def _drop_tables(pipe: Pipe, folder: Path, records: Sequence[TableRecord]) -> list[str]:
    with _destination(pipe, folder) as client:
        for record in records:
            ddl.drop_table(client, pipe.database, f"{record.target}_current")
            ddl.drop_table(client, pipe.database, record.target)
    return [f"table {pipe.database}.{record.target}" for record in records]


@contextlib.contextmanager
def _at_rest(pipe: Pipe, folder: Path) -> Iterator[StateStore]:
    with hold(folder, pipe.name), contextlib.closing(StateStore(folder)) as store:
        yield store


@contextlib.contextmanager
def _destination(pipe: Pipe, folder: Path) -> Iterator[Client]:
    with contextlib.closing(Client.open(pipe.destination, scratch=folder / f"{pipe.name}.scratch")) as client:
        yield client
