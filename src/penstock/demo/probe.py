"""Latency as an observer sees it: an order is placed, then looked for in ClickHouse until it is there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from penstock.observe.status import Latencies

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Sequence

    from psycopg import Connection

PAUSE_SECONDS = 0.25
LOOK_SECONDS = 0.005
GIVE_UP_SECONDS = 30.0

PLACE = "insert into orders (customer_id, total, note) values (1, 0, 'probe') returning id"
FIND = "select toString(id) from orders where id = {} limit 1"


class Probe:
    """Commit → found by a query, in milliseconds. The looking itself takes a few of them, and counts."""

    def __init__(self, connection: Connection, query: Callable[[str], Iterable[Sequence[object]]]) -> None:
        self.latencies = Latencies()
        self.last: float | None = None
        self._connection = connection
        self._query = query

    def run(self, closing: threading.Event) -> None:
        """Place and find orders until ``closing`` is set; in a thread."""
        while not closing.wait(PAUSE_SECONDS):
            self._once(closing)

    def _once(self, closing: threading.Event) -> None:
        row = self._connection.execute(PLACE).fetchone()
        committed = time.perf_counter()
        find = FIND.format(int(row[0]) if row else 0)
        while not list(self._query(find)):
            if closing.wait(LOOK_SECONDS) or time.perf_counter() - committed > GIVE_UP_SECONDS:
                return
        self.last = (time.perf_counter() - committed) * 1000
        self.latencies.add(self.last)
