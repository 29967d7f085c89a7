"""Inserts batches: one block a statement, durable when ``insert()`` returns, never twice at the same time.

A server may finish an insert that the client gave up. So each has a query id of its own, and after a timeout or a lost
connection it is killed and seen to be gone before the caller hears of the failure; where the server cannot be asked, before
the next insert into that table (clickhouse.md 1 to 3). Ids begin with what tells the table: before the first insert into it, those
of a process that was killed are ended too. Repeating is harmless: rows are versioned by their place in the stream.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import uuid
from typing import TYPE_CHECKING

from penstock.clickhouse import documents
from penstock.clickhouse.client import Into
from penstock.errors import BadDataError, DestinationRefusedError, DestinationUnavailableError

if TYPE_CHECKING:
    from penstock.batch import Batch
    from penstock.clickhouse.client import Client
    from penstock.clickhouse.connect import Scalar
    from penstock.plan import Plan

SETTINGS: dict[str, Scalar] = {
    "async_insert": 0,  # asynchronous is the default of new servers
    "wait_for_async_insert": 1,  # and a profile may force it
    "insert_deduplicate": 0,  # insert, delete, insert again makes equal blocks
    "deduplicate_insert": "disable",  # the same, from 26 on
    "max_partitions_per_insert_block": 0,
    "input_format_skip_unknown_fields": 0,  # a column the table lacks is an error
    "input_format_null_as_default": 0,  # and so is a NULL where none is possible
    "insert_null_as_default": 0,
}
_CONVERSION = "input_format_native_allow_types_conversion"


class Writer:
    """Inserts into the tables of one database. Safe for threads; one insert a table at a time is the caller's affair."""

    def __init__(self, client: Client, database: str) -> None:
        self._client = client
        self._database = database
        self._settings: dict[str, Scalar] = {}
        self._converts = False
        self._lost: dict[str, set[str]] = {}  # by table, settled once: inserts that may still run
        self._lock = threading.Lock()
        self._beginning = threading.Lock()

    def insert(self, batch: Batch) -> None:
        """Insert one batch; durable when it returns.

        Raises DestinationUnavailableError when the same batch should be tried again, TableError when this table cannot
        go on, DestinationRefusedError when none can. JSON that ClickHouse refuses is replaced in the batch, and counted there.
        """
        try:
            self._send(batch)
        except BadDataError:
            if not documents.places(batch.plan) or not documents.stand_in(self._client, batch):
                raise
            self._send(batch)

    def _send(self, batch: Batch) -> None:
        plan = batch.plan
        settings = self._settings_for(plan)
        self.settle(plan.target)
        query_id = self._ids(plan.target) + uuid.uuid4().hex
        try:
            self._client.insert(self._into(plan), batch.chunks(), settings=settings, query_id=query_id)
        except DestinationUnavailableError:
            with self._lock:
                self._lost[plan.target].add(query_id)
            self._settle_quietly(plan.target)
            raise
        except BaseException:
            with self._lock:
                self._lost[plan.target].add(query_id)
            raise

    def _into(self, plan: Plan) -> Into:
        if not documents.places(plan):
            return Into(self._database, plan.target, plan.column_names)
        return Into(
            self._database, plan.target, plan.column_names, documents.selection(plan), documents.structure(plan)
        )

    def settle(self, target: str) -> None:
        """Make sure that no insert into this table runs any more that was given up: the barrier before any DDL on it.

        Raises DestinationUnavailableError when that cannot be made certain.
        """
        self._settle_former(target)
        with self._lock:
            lost = list(self._lost[target])
        for query_id in lost:
            self._client.kill(query_id)
            with self._lock:
                self._lost[target].discard(query_id)

    def _ids(self, target: str) -> str:
        """How the ids of all inserts into this table begin, those of an earlier process too."""
        return f"penstock-{hashlib.sha256(f'{self._database}.{target}'.encode()).hexdigest()[:16]}-"

    def _settle_former(self, target: str) -> None:
        """Once, before any insert of ours: what a process that was killed has left. An embedded ClickHouse has ended with it.

        Who may not look there is told so by ``penstock check``.
        """
        with self._beginning:
            if target not in self._lost:
                if not self._client.embedded:
                    with contextlib.suppress(DestinationRefusedError):
                        self._client.kill(self._ids(target))
                self._lost[target] = set()

    def _settle_quietly(self, target: str) -> None:
        """The server may be gone: then the next insert asks again."""
        try:
            self.settle(target)
        except DestinationUnavailableError:
            return

    def _settings_for(self, plan: Plan) -> dict[str, Scalar]:
        if not self._settings:
            self._settings = {name: value for name, value in SETTINGS.items() if self._client.knows(name)}
            self._converts = self._client.knows(_CONVERSION)
        found = {**self._settings, _CONVERSION: int(plan.casts)} if self._converts else self._settings
        return {**found, **documents.settings(self._client)} if documents.places(plan) else found
