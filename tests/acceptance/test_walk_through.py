"""From an untouched PostgreSQL to a running pipe, by nothing but what ``penstock setup`` and ``penstock check`` print."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from tests.fix_pipe import Case
from tests.fix_postgres import Database
from tests.servers.postgres import PostgresServer
from tests.servers.postgres_binaries import PASSWORD, SUPERUSER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.clickhouse import ClickHouseServer


@pytest.fixture
def untouched(clickhouse_server: ClickHouseServer, tmp_path: Path) -> Iterator[Case]:
    """A shop in a PostgreSQL as it is installed, and the pipe's file as somebody writes it who has read the README."""
    with PostgresServer(16, {"max_wal_senders": "10", "max_replication_slots": "10"}) as server:
        server.stop()
        del server.settings["wal_level"]
        server.start()
        database = Database(server, "postgres")
        database.execute(
            "create table customers (id int primary key, name text)",
            "create table orders (id int primary key, customer int references customers, total numeric(10, 2))",
            "insert into customers select i, 'customer ' || i from generate_series(1, 100) i",
            "insert into orders select i, 1 + i % 100, i * 1.5 from generate_series(1, 1000) i",
        )
        clickhouse_server.query("drop database if exists shop sync")
        case = Case(tmp_path, database, clickhouse_server.dsn(), clickhouse_server)
        case.source_dsn = server.dsn("postgres", user="penstock", password=None)
        case.define(source=f'password = {{ file = "{tmp_path}/secret" }}')
        yield case
        clickhouse_server.query("drop database if exists shop sync")


def setup(case: Case, *words: str) -> list[dict[str, Any]]:
    done = case.penstock("setup", str(case.file), "--json", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    steps: list[dict[str, Any]] = json.loads(done.stdout)["steps"]
    return [step for step in steps if step["state"] != "right"]


def done_by_hand(case: Case, steps: list[dict[str, Any]]) -> None:
    """What a plan leaves to people: a restart, and a line in the pipe's file."""
    for step in steps:
        if step["name"] == "restart":
            assert "pg_ctl restart" in " ".join(step["fix"]["cli"])
            case.database.server.restart()
        elif step["name"] == "definition":
            line = re.search(r'publication = "\w+"', step["fix"]["advice"])
            assert line
            case.file.write_text(case.file.read_text().replace("[source]\n", f"[source]\n{line[0]}\n"))


def arrives(case: Case) -> None:
    """The pipe is ready, and carries rows."""
    checked = case.penstock("check", str(case.file))
    assert checked.returncode == 0, checked.stdout
    assert setup(case) == []
    with case.running():
        case.database.execute("insert into customers values (101, 'last')", "update orders set total = 0 where id = 7")
        case.wait_for("select count() from customers_current", 101)
        case.wait_for("select total from orders_current where id = 7", "0")
    case.assert_equal("public.customers", "public.orders")


def test_setup_does_it(untouched: Case) -> None:
    untouched.environment["PENSTOCK_ADMIN_DSN"] = f"user={SUPERUSER} password={PASSWORD}"
    left = setup(untouched, "--apply")
    assert {step["name"] for step in left} == {"restart", "definition"}
    done_by_hand(untouched, left)
    arrives(untouched)


@pytest.mark.slow
def test_people_do_it(untouched: Case) -> None:
    """Every statement that the plan prints, pasted by an administrator who chooses the password."""
    untouched.environment["PENSTOCK_ADMIN_DSN"] = f"user={SUPERUSER} password={PASSWORD}"
    (untouched.folder / "secret").write_text("chosen")
    checked = untouched.penstock("check", str(untouched.file))
    assert checked.returncode == 3
    assert "penstock setup" in checked.stdout
    steps = setup(untouched)
    assert all(step["fix"]["sql"] or step["fix"]["cli"] or step["fix"]["advice"] for step in steps)
    for statement in (each for step in steps for each in step["fix"]["sql"]):
        untouched.database.execute(statement.replace("'…'", "'chosen'"))
    done_by_hand(untouched, steps)
    arrives(untouched)
