"""penstock setup at a server of one's own: plan, apply, nothing left, a pipe runs, undo, everything as before."""

from __future__ import annotations

import json
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql
from tests.catalog_state import state
from tests.servers.postgres_binaries import PASSWORD, SUPERUSER
from typer.testing import CliRunner

from penstock.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fix_pipe import Case
    from tests.fix_postgres import Database
    from tests.servers.postgres import PostgresServer

ROLE = "penstock_made"
ADMIN = f"user={SUPERUSER} password={PASSWORD}"


@pytest.fixture
def shop(served: Case, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """A pipe whose role is not there yet; its administrator is the superuser."""
    database = served.database
    with _without_role(database):
        database.execute(
            "create schema sales",
            "create table public.customers (id int primary key, name text)",
            'create table sales."Odd ""name" (id int primary key)',
            "create table sales.days (day date, id int, primary key (day, id)) partition by range (day)",
            "create table sales.days_1 partition of sales.days for values from ('2026-01-01') to ('2027-01-01')",
            "create table sales.log (line text)",
        )
        served.source_dsn = database.server.dsn(database.name, user=ROLE, password=None)
        monkeypatch.setenv("PENSTOCK_HOME", str(served.home))
        monkeypatch.setenv("PENSTOCK_ADMIN_DSN", ADMIN)
        define(served)
        yield served


@contextmanager
def _without_role(database: Database) -> Iterator[None]:
    def drop() -> None:
        with database.connect() as admin:
            if admin.execute("select 1 from pg_roles where rolname = %s", (ROLE,)).fetchone():
                admin.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(ROLE)))
                admin.execute(sql.SQL("drop role {}").format(sql.Identifier(ROLE)))

    drop()
    yield
    drop()


def define(case: Case, include: str = '"public.*", "sales.*"', source: str = "", secret: str = "") -> None:
    secret = secret or f'file = "{case.folder}/secret"'
    case.define(f'include = [{include}]\nexclude = ["sales.log"]', source=f"password = {{ {secret} }}\n{source}")


def called(case: Case, *words: str, expect: int = 0) -> str:
    done = CliRunner().invoke(app, ["setup", str(case.file), *words])
    assert done.exit_code == expect, done.output
    return done.output


def setup(case: Case, *words: str, expect: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(called(case, "--json", *words, expect=expect))
    return answer


def states(answer: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(step["name"], step["subject"]): step["state"] for step in answer["steps"]}


def left(answer: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {key: value for key, value in states(answer).items() if value != "right"}


def test_a_table_that_is_locked_when_it_is_to_be_published(shop: Case, database: Database) -> None:
    with database.connect(application_name="slowpoke") as other:
        other.execute("begin; lock table public.customers in exclusive mode")
        refused = setup(shop, "--apply", expect=1)
        waits = f"waits for the lock of public.customers: PID {other.info.backend_pid} "
        assert waits in refused["error"]
        assert "slowpoke" in refused["error"]
        assert "when that session has ended" in refused["hint"]
        other.execute("commit")
        assert left(setup(shop, "--apply")) == {("definition", "shop"): "by hand"}
    assert len(setup(shop, "--undo")["taken_back"]) == 8


def test_plan_apply_run_undo(shop: Case, database: Database) -> None:
    before = state(database)
    assert states(setup(shop)) == {
        ("wal_level", "wal_level"): "right",
        ("role", ROLE): "needed",
        ("replication", ROLE): "needed",
        ("schema", "public"): "right",
        ("schema", "sales"): "needed",
        ("tables", "public"): "needed",
        ("tables", "sales"): "needed",
        ("later tables", "public, of postgres"): "needed",
        ("later tables", "sales, of postgres"): "needed",
        ("publication", "penstock_shop"): "needed",
        ("definition", "shop"): "by hand",
    }
    assert state(database) == before
    assert not (shop.folder / "secret").exists()
    assert left(setup(shop, "--apply")) == {("definition", "shop"): "by hand"}
    secret = (shop.folder / "secret").read_text().strip()
    assert len(secret) == 32
    assert stat.S_IMODE((shop.folder / "secret").stat().st_mode) == 0o600
    assert secret not in database.server.log
    assert "SCRAM" not in (shop.home / "shop.setup.json").read_text()
    assert states(setup(shop))["login", ROLE] == "right"
    assert shop.penstock("check", str(shop.file)).returncode == 0
    database.execute("insert into public.customers values (1, 'x')", "insert into sales.days values ('2026-02-03', 4)")
    shop.once()
    assert shop.query("select id, name from customers_current") == [["1", "x"]]
    assert shop.query("select day, id from days_current") == [["2026-02-03", "4"]]
    assert "penstock drop" in setup(shop, "--undo", expect=2)["hint"]
    assert "publication" not in shop.penstock("drop", str(shop.file)).stdout  # which the administrator has made
    assert len(setup(shop, "--undo")["taken_back"]) == 8
    assert state(database) == before
    assert not (shop.folder / "secret").exists()
    assert not (shop.home / "shop.setup.json").exists()
    assert setup(shop, "--undo") == {"taken_back": []}


@pytest.mark.pg("15")
def test_undo_takes_back_what_setup_gave_and_nothing_else(shop: Case, database: Database) -> None:
    with database.connect() as admin:
        admin.execute(sql.SQL("create role {} login password {} replication").format(sql.Identifier(ROLE), PASSWORD))
    database.execute(
        f"grant usage on schema sales to {ROLE}",
        f'grant select on sales."Odd ""name" to {ROLE}',
        f"alter default privileges in schema public grant select on tables to {ROLE}",
        "create publication given for table public.customers",
    )
    (shop.folder / "secret").write_text(PASSWORD)
    define(shop, source='publication = "given"')
    before = state(database)
    assert set(left(setup(shop))) == {
        ("tables", "public"),
        ("tables", "sales"),
        ("later tables", "sales, of postgres"),
        ("publication", "given"),
    }
    assert left(setup(shop, "--apply")) == {}
    database.execute("drop table sales.days")  # what is gone is taken back
    setup(shop, "--undo")
    after = state(database)
    assert {name: after[name] for name in after if name != "tables"} == {
        name: before[name] for name in before if name != "tables"
    }
    assert after["tables"] == [each for each in before["tables"] if "days" not in each[0]]
    assert (shop.folder / "secret").read_text() == PASSWORD


@pytest.mark.pg("15")
def test_a_file_that_somebody_made_after_a_failure_stays(shop: Case, database: Database) -> None:
    """What setup wanted to write into it is recorded before; it never did."""
    file = shop.folder / "later" / "secret"
    define(shop, secret=f'file = "{file}"')
    assert "cannot be made" in setup(shop, "--apply", expect=2)["error"]
    file.parent.mkdir()
    file.write_text("my own\n")
    setup(shop, "--undo")
    assert file.read_text() == "my own\n"
    assert database.fetch(f"select from pg_roles where rolname = '{ROLE}'") == []


@pytest.mark.pg("15")
def test_a_role_that_was_given_more_stays(shop: Case, database: Database) -> None:
    setup(shop, "--apply")
    database.execute(f"grant insert on sales.log to {ROLE}")
    refused = setup(shop, "--undo", expect=1)
    assert "cannot be dropped" in refused["error"]
    assert "privileges for table sales.log" in refused["hint"]
    database.execute(f"revoke insert on sales.log from {ROLE}")
    assert [each["name"] for each in setup(shop, "--undo")["taken_back"]] == ["role"]


@pytest.mark.pg("15")
def test_what_only_others_may_do_is_by_hand(shop: Case, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.connect() as admin:
        admin.execute(sql.SQL("create role {} login password {}").format(sql.Identifier(ROLE), PASSWORD))
    database.execute(f"alter schema sales owner to {ROLE}")
    (shop.folder / "secret").write_text(PASSWORD)
    monkeypatch.delenv("PENSTOCK_ADMIN_DSN")  # the pipe's own role does what it may
    steps = setup(shop)["steps"]
    found = {(step["name"], step["subject"]): (step["state"], step["fix"]["sql"]) for step in steps}
    assert found["schema", "sales"] == ("right", [])
    assert found["tables", "sales"] == (
        "by hand",
        [f'GRANT SELECT ON TABLE "sales"."Odd ""name", "sales"."days", "sales"."days_1" TO "{ROLE}";'],
    )
    assert found["publication", "penstock_shop"][0] == "by hand"
    refused = setup(shop, "--apply", expect=1)
    assert refused["error"].startswith(f'setup: ALTER ROLE "{ROLE}" WITH REPLICATION;')


@pytest.mark.pg("15")
def test_what_is_not_published_unasked_and_rows_that_policies_hide(shop: Case, database: Database) -> None:
    database.execute(
        "create table public.bare (id int)",
        "create table public.hidden (id int primary key)",
        "alter table public.hidden enable row level security",
    )
    answer = setup(shop, "--apply")
    assert left(answer) == {("replica identity", "public.bare"): "by hand", ("definition", "shop"): "by hand"}
    (bare,) = [step for step in answer["steps"] if step["subject"] == "public.bare"]
    published = "select tablename from pg_publication_tables where pubname = 'penstock_shop' order by 1"
    assert "bare" not in [name for (name,) in database.fetch(published)]
    assert database.fetch(f"select rolbypassrls from pg_roles where rolname = '{ROLE}'") == [(True,)]
    database.execute(*bare["fix"]["sql"])
    assert states(setup(shop))["publication", "penstock_shop"] == "needed"
    assert ("replica identity", "public.bare") not in left(setup(shop, "--apply"))
    assert "bare" in [name for (name,) in database.fetch(published)]
    database.execute("create table sales.later (id int primary key)")  # one more, and the same again
    assert left(setup(shop)) == {("publication", "penstock_shop"): "needed", ("definition", "shop"): "by hand"}
    setup(shop, "--apply")
    assert "later" in [name for (name,) in database.fetch(published)]
    setup(shop, "--undo")
    assert database.fetch("select from pg_publication") == []
    assert database.fetch(f"select from pg_roles where rolname = '{ROLE}'") == []


@pytest.mark.pg("15")
def test_a_role_that_owns_its_tables_publishes_them_itself(shop: Case, database: Database) -> None:
    with database.connect() as admin:
        admin.execute(sql.SQL("create role {} login superuser password {}").format(sql.Identifier(ROLE), PASSWORD))
    (shop.folder / "secret").write_text(PASSWORD)
    assert left(setup(shop)) == {}
    assert states(setup(shop))["publication", "penstock_shop"] == "right"


@pytest.mark.pg("15")
def test_passwords_are_shown_when_asked_for_and_in_no_other_place(
    shop: Case, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(shop, secret='env = "SHOP_SECRET"')
    monkeypatch.delenv("SHOP_SECRET", raising=False)
    steps = {step["name"]: step for step in setup(shop)["steps"]}
    assert steps["role"]["state"] == "by hand"
    assert "SHOP_SECRET is not set" in steps["role"]["what"]
    answer = setup(shop, "--apply", "--show-password")
    made = answer["passwords"][ROLE]
    assert made not in json.dumps(answer["steps"])
    assert made not in database.server.log
    with database.connect(user=ROLE, password=made) as connection:
        assert connection.execute("select current_user").fetchone() == (ROLE,)
    assert made not in called(shop, "--apply")
    setup(shop, "--undo")


@pytest.mark.pg("15")
def test_as_terraform(shop: Case, database: Database) -> None:
    text = called(shop, "--terraform")
    for part in (
        'source = "cyrilgdn/postgresql"',
        f'resource "postgresql_role" "{ROLE}" {{',
        "= var.penstock_password",
        'objects     = ["Odd \\"name", "days", "days_1"]',
        'resource "postgresql_publication" "penstock_shop" {',
    ):
        assert part in text, text
    assert text.count("{") == text.count("}")
    assert database.fetch(f"select from pg_roles where rolname = '{ROLE}'") == []


@pytest.mark.pg("15")
def test_wrong_usage_and_a_server_that_does_not_answer(
    shop: Case, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert setup(shop, "--apply", "--undo", expect=2)["kind"] == "Config"
    assert "address" in setup(shop, "--with", "adress=1.2.3.4", expect=2)["hint"]
    assert "OTHER_DSN" in setup(shop, "--admin-dsn-env", "OTHER_DSN", expect=2)["error"]
    monkeypatch.setenv("PENSTOCK_ADMIN_DSN", "password='hidden")
    assert "hidden" not in called(shop, expect=2)
    monkeypatch.setenv("PENSTOCK_ADMIN_DSN", f"user={SUPERUSER} password=wrong1word")
    words = called(shop)
    assert "reach the source" in words
    assert "wrong1word" not in words
    assert setup(shop, "--apply", expect=1)["kind"] == "SourceRefused"


@pytest.mark.pg("15")
def test_who_lets_nobody_replicate(shop: Case, database: Database) -> None:
    define(shop, source='provider = "heroku"')
    assert "only a single copy is possible" in setup(shop, expect=1)["error"]
    define(shop, source='provider = "redshift"')
    assert "not PostgreSQL" in setup(shop, "--apply", expect=1)["error"]
    define(shop, source='provider = "cloudsql"')
    steps = {step["name"]: step for step in setup(shop)["steps"]}
    assert steps["wal_level"]["state"] == "right"  # this server has it already


@pytest.mark.pg("15")
def test_a_pipe_that_does_not_get_in(shop: Case, database: Database) -> None:
    with database.connect() as admin:
        admin.execute(sql.SQL("create role {} login replication password 'another'").format(sql.Identifier(ROLE)))
    (shop.folder / "secret").write_text("wrong1word")
    step = next(each for each in setup(shop)["steps"] if each["name"] == "login")
    assert (step["state"], "password authentication failed" in step["what"]) == ("by hand", True)


@pytest.mark.pg("15")
def test_undo_knows_its_server(shop: Case, database: Database, other_server: PostgresServer) -> None:
    setup(shop, "--apply")
    mine = shop.source_dsn
    shop.source_dsn = other_server.dsn(user=ROLE, password=None)
    define(shop)
    assert "is not the server that was set up" in setup(shop, "--undo", expect=2)["error"]
    shop.source_dsn = mine
    define(shop)
    assert len(setup(shop, "--undo")["taken_back"]) == 8


@pytest.fixture
def other_server(postgres_servers: Any) -> PostgresServer:
    server: PostgresServer = postgres_servers(16)
    return server
