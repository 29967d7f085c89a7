"""What the people in the shop do: concurrent transactions at a given rate, as a program (``python -m penstock.demo.shopper``).

It ends when its standard input does, so it cannot outlive the demo. Several times a second it prints, as a JSON line, what it
has committed. Some transactions are rolled back on purpose: their rows must never arrive.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors, sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection

REPORT_SECONDS = 0.25
MOST_BEHIND_SECONDS = 0.5  # a slow moment is not made up for by a burst

PLACE = "insert into orders (customer_id, total) values (%s, 0) returning id"
FILL = """
    insert into order_items (order_id, line, sku, quantity, price)
    select %(order)s, row_number() over (), sku, 1 + row_number() over () %% 5, price
    from (select sku, price from products where sku >= %(from)s order by sku limit %(lines)s) as chosen"""
SUM = """
    update orders set total = (select coalesce(sum(quantity * price), 0) from order_items where order_id = id)
    where id = %s"""
REGISTER = "insert into customers (name, email, country, profile) values (%s, %s, %s, %s) returning id"
PROGRESS = """
    update orders set status = (enum_range(status, null))[2], changed_at = clock_timestamp()
    where id = %s and status <> 'returned'"""
RESTOCK = """
    update products set stock = stock + %s, changed_at = clock_timestamp()
    where sku = (select sku from products where sku >= %s order by sku limit 1)"""
DESCRIBE = """
    update products set description = (select string_agg(md5(random()::text), ' ') from generate_series(1, 120))
    where sku = (select sku from products where sku >= %s order by sku limit 1)"""
LEARN = """
    update customers set profile = profile || %s, credit = coalesce(credit, 0) + 0.01, is_vip = not is_vip
    where id = %s"""
RENUMBER = "update order_items set line = line + 100 where order_id = %s and line < 100"
RENAME = """
    update products set sku = split_part(sku, '/', 1) || '/' || %s
    where sku = (select sku from products where sku >= %s order by sku limit 1)"""
SOLD = "select count(*) from order_items where sku = %s"  # they follow a renamed product
EMPTY = "delete from order_items where order_id = %s"
CANCEL = "delete from orders where id = %s"
COUNTRIES = ("de", "fr", "us", "jp", "br", "in")


class Shopper:
    """One connection that shops. Each action is one transaction and returns the rows it changed, by kind."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self._db = connection
        self._dice = random.Random(seed)  # noqa: S311  # a repeatable workload, no secret
        self._products = self._number("select count(*) from products")
        self._customers = self._number("select max(id) from customers")
        self._last_order = self._number("select max(id) from orders")
        self._actions: dict[Callable[[], Counter[str]], int] = {
            self._order: 45,
            self._progress: 24,
            self._restock: 10,
            self._learn: 6,
            self._renumber: 5,
            self._cancel: 5,
            self._describe: 2,
            self._rename: 1,
            self._give_up: 2,
        }

    def act(self) -> Counter[str]:
        """Do one thing. To lose against another shopper is part of life."""
        (action,) = self._dice.choices(list(self._actions), weights=list(self._actions.values()))
        done = Counter(rolled_back=1)
        try:
            with self._db.transaction():
                done = action() + Counter(transactions=1)
        except (errors.DeadlockDetected, errors.ForeignKeyViolation, errors.UniqueViolation):
            pass
        return done

    def _order(self) -> Counter[str]:
        """A new order of one to four items, one in five of a new customer."""
        customer, newcomers = 1 + self._dice.randrange(self._customers), 0
        if self._dice.random() < 0.2:
            profile = json.dumps({"source": "demo", "points": self._dice.randrange(10**6)})
            customer = self._number(REGISTER, "Newcomer ✓", "new@example.com", self._dice.choice(COUNTRIES), profile)
            newcomers = 1
        order = self._last_order = self._number(PLACE, customer)
        items = self._changed(FILL, {"order": order, "from": self._sku(), "lines": self._dice.randint(1, 4)})
        self._changed(SUM, (order,))
        return Counter(inserted=newcomers + 1 + items, updated=1)

    def _progress(self) -> Counter[str]:
        return Counter(updated=self._changed(PROGRESS, (self._recent_order(),)))

    def _restock(self) -> Counter[str]:
        """The long description stays as it is: PostgreSQL does not send it."""
        return Counter(updated=self._changed(RESTOCK, (self._dice.randint(-9, 9), self._sku())))

    def _describe(self) -> Counter[str]:
        return Counter(updated=self._changed(DESCRIBE, (self._sku(),)))

    def _learn(self) -> Counter[str]:
        liked = json.dumps({"seen": self._dice.randrange(1000), "text": "a \t tab, a \\ and “quotes”"})
        return Counter(updated=self._changed(LEARN, (liked, 1 + self._dice.randrange(self._customers))))

    def _renumber(self) -> Counter[str]:
        """A change of the primary key."""
        return Counter(rekeyed=self._changed(RENUMBER, (self._recent_order(),)))

    def _rename(self) -> Counter[str]:
        """A change of a primary key that others refer to, with a long text that is not sent."""
        renamed = self._db.execute(RENAME + " returning sku", (self._dice.randrange(10**6), self._sku())).fetchone()
        return Counter(rekeyed=1, updated=self._number(SOLD, renamed[0])) if renamed else Counter()

    def _cancel(self) -> Counter[str]:
        order = self._recent_order()
        items = self._changed(EMPTY, (order,))
        return Counter(deleted=items + self._changed(CANCEL, (order,)))

    def _give_up(self) -> Counter[str]:
        """An order that is never placed."""
        self._order()
        raise psycopg.Rollback

    def _recent_order(self) -> int:
        return self._last_order - self._dice.randrange(2000)

    def _sku(self) -> str:
        return f"P-{1 + self._dice.randrange(self._products):06}"

    def _number(self, statement: str, *parameters: object) -> int:
        row = self._db.execute(sql.SQL(statement), parameters).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def _changed(self, statement: str, parameters: tuple[object, ...] | dict[str, object]) -> int:
        return self._db.execute(sql.SQL(statement), parameters).rowcount


class Till:
    """Counts what all shoppers have done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: Counter[str] = Counter()

    def add(self, done: Counter[str]) -> None:
        """Take one transaction in."""
        with self._lock:
            self._done += done

    def report(self) -> None:
        """Print the counts: one JSON line."""
        with self._lock:
            line = json.dumps(self._done)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def shop(shopper: Shopper, till: Till, *, seconds_each: float, closing: threading.Event) -> None:
    """Act every ``seconds_each`` until ``closing`` is set."""
    due = time.monotonic()
    while not closing.wait(max(0.0, due - time.monotonic())):
        till.add(shopper.act())
        due = max(due + seconds_each, time.monotonic() - MOST_BEHIND_SECONDS)


def _close_with_input(closing: threading.Event) -> None:
    sys.stdin.read()
    closing.set()


def main() -> None:
    """Shop until standard input ends."""
    parser = argparse.ArgumentParser(description="The demo's workload.")
    parser.add_argument("dsn")
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True, help="transactions a second")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    password = asked.password_file.read_text().strip()
    till, closing = Till(), threading.Event()
    threading.Thread(target=_close_with_input, args=(closing,), daemon=True).start()
    with contextlib.ExitStack() as open_, ThreadPoolExecutor(asked.workers) as pool:
        connections = [
            open_.enter_context(psycopg.connect(asked.dsn, password=password, autocommit=True))
            for _ in range(asked.workers)
        ]
        work = [
            pool.submit(
                shop,
                Shopper(connection, asked.seed * 1000 + place),
                till,
                seconds_each=asked.workers / asked.rate,
                closing=closing,
            )
            for place, connection in enumerate(connections)
        ]
        while not closing.wait(REPORT_SECONDS):
            till.report()
            if any(each.done() for each in work):
                closing.set()
        for each in work:
            each.result()
    till.report()


if __name__ == "__main__":
    main()
