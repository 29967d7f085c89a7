"""A random concurrent workload on a source: transactions of every kind, from several sessions, until it is told to stop."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_postgres import Database

KEYS = 3000
TABLES = ("public.a", "public.b")
_COMMON = (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable)


def make_tables(database: Database, rows: int = 2000) -> None:
    """``a`` has out-of-line text, ``b`` a key of two columns."""
    database.execute(
        "create table a (id int primary key, v int, t text)",
        "create table b (k text, n int, v numeric(10, 2), primary key (k, n))",
        "alter table a alter t set storage external",
        f"insert into a select i, i, repeat('t' || i, 600) from generate_series(1, {rows}) i",
        f"insert into b select 'k' || i % 100, i, i / 3.0 from generate_series(1, {rows}) i",
    )


class Load:
    """How far the workload is."""

    def __init__(self, database: Database, *, truncates: bool) -> None:
        self.database = database
        self.truncates = truncates
        self.commits = 0
        self.ending = threading.Event()
        self.broken: list[BaseException] = []

    def wait_for_commits(self, count: int, seconds: float = 60) -> None:
        """Return when so many more transactions have committed."""
        wanted, deadline = self.commits + count, time.monotonic() + seconds
        while self.commits < wanted:
            assert not self.broken, self.broken
            assert time.monotonic() < deadline, f"only {self.commits} of {wanted} transactions in {seconds} s"
            self.ending.wait(0.01)

    def work(self, seed: int) -> None:
        """One session; a new one where the server ends it."""
        chance = random.Random(seed)
        while not self.ending.is_set():
            try:
                with self.database.connect() as connection:
                    while not self.ending.is_set():
                        self._transaction(connection, chance)
            except psycopg.OperationalError:
                self.ending.wait(0.05)
            except BaseException as error:
                self.broken.append(error)
                raise

    def _transaction(self, connection: psycopg.Connection, chance: random.Random) -> None:
        with contextlib.suppress(*_COMMON), connection.transaction():
            for _ in range(chance.randint(1, 8)):
                with contextlib.suppress(*_COMMON[:1]), connection.transaction():  # a savepoint
                    self._statement(connection, chance)
                    if chance.random() < 0.1:
                        raise psycopg.Rollback
            if chance.random() < 0.1:
                raise psycopg.Rollback
        self.commits += 1
        self.ending.wait(0.002)

    def _statement(self, connection: psycopg.Connection, chance: random.Random) -> None:
        one, other = chance.randint(1, KEYS), chance.randint(1, KEYS)
        text = "insert into a values (%s, -1, %s) on conflict (id) do update set v = a.v - 1"
        match chance.randint(0, 11):
            case 0 | 1:
                connection.execute(text, (one, f"new{other} " * 500))
            case 2 | 3:
                connection.execute("update a set v = v + 1 where id between %s and %s", (one, one + 5))
            case 4:
                connection.execute("update a set v = v + 1, t = %s where id = %s", (f"other{one} " * 500, one))
            case 5:
                connection.execute("delete from a where id between %s and %s", (one, one + 2))
            case 6:
                connection.execute("update a set id = %s where id = %s", (other, one))
            case 7:
                connection.execute("update b set v = v + 1 where n between %s and %s", (one, one + 9))
            case 8:
                connection.execute("update b set k = 'x' || %s where n = %s", (other, one))
            case 9:
                connection.execute("insert into b values (%s, %s, 0) on conflict do nothing", (f"n{one}", other))
            case 10:
                connection.execute("delete from b where n between %s and %s", (one, one + 1))
            case 11 if self.truncates and chance.random() < 0.05:
                connection.execute("set local lock_timeout = '200ms'")
                connection.execute("truncate b")
                connection.execute("insert into b select 'after', i, 0 from generate_series(1, 50) i")
            case _:
                connection.execute(
                    "insert into b values (%s, %s, 7) on conflict (k, n) do update set v = 8", (f"k{one % 100}", one)
                )


@contextlib.contextmanager
def load(database: Database, *, sessions: int = 2, seed: int = 1, truncates: bool = False) -> Iterator[Load]:
    """The workload runs while the context lasts; its sessions have ended afterwards."""
    load = Load(database, truncates=truncates)
    threads = [threading.Thread(target=load.work, args=(seed * 100 + number,)) for number in range(sessions)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.ending.set()
        for thread in threads:
            thread.join()
    assert not load.broken, load.broken
