"""The publication of a pipe that is about to begin: what is not in it any more, what is still to get in, and what to get out.

It changes under locks of its tables, which others may hold for hours. No table waits for another's: one that is locked gets in while
the pipe runs (``arrivals.py``), and out at the next start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from penstock.pipeline.evolve import unpublished
from penstock.pipeline.lifecycle import State
from penstock.pipeline.versions import from_json
from penstock.plan import Shape
from penstock.postgres import publication

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.config import Pipe
    from penstock.pipeline.checkpoint import Store, TableRecord
    from penstock.plan import Plan
    from penstock.postgres.connection import Connection
    from penstock.postgres.waiting import Waiting
    from penstock.table import Table

log = structlog.get_logger()


def withdraw(
    pipe: Pipe, connection: Connection, left: Sequence[TableRecord], plans: Sequence[Plan], waiting: Waiting
) -> None:
    """Take tables that are left out of the pipe out of a publication of ours."""
    if pipe.source.publication or not left:
        return
    # a table of its own may have become a partition, and on 12 that stands in the publication itself
    partitions = {leaf.oid for plan in plans for leaf in plan.table.leaves}
    oids = {record.oid for record in left} - partitions
    if late := publication.withdraw(connection, pipe.publication, oids, waiting):
        log.warning(
            "tables stay published", tables=", ".join(late), why="others keep them locked", fix="Start the pipe again."
        )


def publish(
    pipe: Pipe,
    store: Store,
    connection: Connection,
    tables: tuple[Sequence[Plan], Mapping[int, TableRecord]],
    waiting: Waiting,
) -> frozenset[int]:
    """See that the tables, as they are now, are published; returns those, by oid, that are to get in later, as others keep them locked.

    Of a table that is copied only new partitions can be unpublished by now: the stream comes to these.
    """
    plans, records = tables
    owned, every = not pipe.source.publication, [plan.table for plan in plans]
    locked = publication.publish(connection, pipe.publication, every, owned=owned, waiting=waiting)
    later = {oid for oid in locked if records[oid].state in (State.WAITING, State.FAILED)}
    for plan in plans:
        record = records[plan.table.oid]
        if record.oid in later and record.state is State.WAITING:
            record.set_back(beside=plan.shape is not Shape.NULL)
            store.save_parts(pipe.name, record.oid, [])
            store.save_table(pipe.name, record)
    return frozenset(later)


def set_aside_unpublished(
    pipe: Pipe, store: Store, connection: Connection, tables: Sequence[tuple[Table, TableRecord]]
) -> None:
    """What the publication did not send while the pipe did not look is missing; putting it back in would hide that.

    Partitions that are new do not count where the publication is ours: they are published now, and copied.
    """
    copied = {
        table.oid: (table if pipe.source.publication else _as_known(table, record), record)
        for table, record in tables
        if record.state not in (State.WAITING, State.FAILED)
    }
    if not copied:
        return
    for table in publication.missing(connection, pipe.publication, [table for table, _ in copied.values()]):
        record = copied[table.oid][1]
        record.fail(unpublished(table))
        store.save_table(pipe.name, record)


def _as_known(table: Table, record: TableRecord) -> Table:
    """The table with those of its partitions that the record knows."""
    if not record.table:
        return table
    known = {leaf.oid for leaf in from_json(record.table).leaves}
    return replace(table, leaves=tuple(leaf for leaf in table.leaves if leaf.oid in known))
