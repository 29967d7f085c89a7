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
STATEMENTS = (
    "insert into a values (%(one)s, -1, repeat('new' || %(other)s, 500)) on conflict (id) do update set v = a.v - 1",
    "insert into a values (%(one)s, -1, repeat('new' || %(other)s, 500)) on conflict (id) do update set v = a.v - 1",
    "update a set v = v + 1 where id between %(one)s and %(one)s + 5",
    "update a set v = v + 1 where id between %(one)s and %(one)s + 5",
    "update a set v = v + 1, t = repeat('other' || %(other)s, 500) where id = %(one)s",
    "update a set v = v + 1, t = null where id = %(one)s",
    "delete from a where id between %(one)s and %(one)s + 2",
    "update a set id = %(other)s where id = %(one)s",
    "update b set v = v + 1 where n between %(one)s and %(one)s + 9",
    "update b set k = 'x' || %(other)s where n = %(one)s",
    "insert into b values ('n' || %(one)s, %(other)s, 0) on conflict do nothing",
    "insert into b values ('k' || %(one)s %% 100, %(one)s, 7) on conflict (k, n) do update set v = 8",
    "delete from b where n between %(one)s and %(one)s + 1",
)
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
            except (psycopg.OperationalError, psycopg.Rollback):  # the latter where rolling back failed
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
        names = {"one": chance.randint(1, KEYS), "other": chance.randint(1, KEYS)}
        connection.execute(chance.choice(STATEMENTS), names)
        if self.truncates and chance.random() < 0.004:
            connection.execute("set local lock_timeout = '200ms'")
            connection.execute("truncate b")
            connection.execute("insert into b select 'after', i, 0 from generate_series(1, 50) i")


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
