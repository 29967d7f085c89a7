"""penstock setup at a server of one's own: plan, apply, nothing left, a pipe runs, undo, everything as before."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from tests.catalog_state import state
from tests.fix_pipe import Case
from tests.servers.postgres_binaries import PASSWORD, SUPERUSER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg
    from tests.fix_postgres import Database

NEW = "penstock_new"


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Iterator[Case]:
    """A pipe whose role is not there yet; its administrator is the superuser."""
    with database.connect() as admin:
        _drop_role(admin)
        admin.execute("create schema sales")
        admin.execute("create table public.customers (id int primary key, name text)")
        admin.execute('create table sales."Odd ""name" (id int primary key)')
        admin.execute("create table sales.days (day date, id int, primary key (day, id)) partition by range (day)")
        admin.execute(
            "create table sales.days_1 partition of sales.days for values from ('2026-01-01') to ('2027-01-01')"
        )
        admin.execute("create table sales.log (line text)")
    case = Case(tmp_path, database, f"chdb://{tmp_path}/chdb")
    case.source_dsn = database.server.dsn(database.name, user=NEW, password=None)
    case.environment["PENSTOCK_ADMIN_DSN"] = f"user={SUPERUSER} password={PASSWORD}"
    case.define(
        'include = ["public.*", "sales.*"]\nexclude = ["sales.log"]',
        source=f'password = {{ file = "{tmp_path}/secret" }}',
    )
    yield case
    with database.connect() as admin:
        _drop_role(admin)


def _drop_role(admin: psycopg.Connection[Any]) -> None:
    if admin.execute("select from pg_roles where rolname = %s", (NEW,)).fetchone():
        admin.execute(f"drop owned by {NEW} cascade")
        admin.execute(f"drop role {NEW}")


def setup(case: Case, *words: str, expect: int = 0) -> dict[str, Any]:
    done = case.penstock("setup", str(case.file), "--json", *words)
    assert done.returncode == expect, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def states(answer: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(step["name"], step["subject"]): step["state"] for step in answer["steps"]}


def test_plan_apply_run_undo(shop: Case, database: Database) -> None:
    before = state(database)
    plan = states(setup(shop))
    assert plan == {
        ("wal_level", "wal_level"): "right",
        ("role", NEW): "needed",
        ("replication", NEW): "needed",
        ("schema", "public"): "right",
        ("schema", "sales"): "needed",
        ("tables", "public"): "needed",
        ("tables", "sales"): "needed",
        ("later tables", "tables of postgres in public"): "needed",
        ("later tables", "tables of postgres in sales"): "needed",
        ("publication", "penstock_shop"): "needed",
        ("definition", "shop"): "by hand",
    }
    assert state(database) == before
    assert not (shop.folder / "secret").exists()
    applied = states(setup(shop, "--apply"))
    assert {key: value for key, value in applied.items() if value != "right"} == {("definition", "shop"): "by hand"}
    password = (shop.folder / "secret").read_text().strip()
    assert len(password) == 32
    assert stat.S_IMODE((shop.folder / "secret").stat().st_mode) == 0o600
    assert password not in database.server.log
    assert "SCRAM-SHA-256" not in (shop.home / "shop.setup.json").read_text()
    shop.define(
        'include = ["public.*", "sales.*"]\nexclude = ["sales.log"]',
        source=f'password = {{ file = "{shop.folder}/secret" }}\npublication = "penstock_shop"',
    )
    assert set(states(setup(shop)).values()) == {"right"}
    assert shop.penstock("check", str(shop.file)).returncode == 0
    database.execute("insert into public.customers values (1, 'x')", "insert into sales.days values ('2026-02-03', 4)")
    shop.once()
    assert shop.query("select id, name from customers_current") == [["1", "x"]]
    assert shop.query("select day, id from days_current") == [["2026-02-03", "4"]]
    refused = setup(shop, "--undo", expect=2)
    assert "penstock drop" in refused["hint"]
    assert shop.penstock("drop", str(shop.file)).returncode == 0
    assert len(setup(shop, "--undo")["taken_back"]) == 8
    assert state(database) == before
    assert not (shop.folder / "secret").exists()
    assert not (shop.home / "shop.setup.json").exists()
    assert setup(shop, "--undo") == {"taken_back": []}
