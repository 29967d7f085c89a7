"""What setup says of servers that it has no API for, and what it does there as an administrator who is no superuser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.servers.postgres import PostgresServer
from tests.setups import ROLE, Operator, apply, asking, left, pipe_at, plan, step_of, undo

from penstock.postgres.providers import PROVIDERS, Support
from penstock.setup import course
from penstock.setup.record import Record
from penstock.setup.step import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_proxy import Proxy

FULL = [each.name for each in PROVIDERS if each.support is Support.FULL and each.name != "generic"]
ADMIN = "shop_admin"


@pytest.fixture(scope="module")
def source() -> Iterator[PostgresServer]:
    """Without logical decoding, full of slots, its tables owned by an administrator as providers give them."""
    with PostgresServer(16, {"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"}) as server:
        for name in ("wal_level", "max_replication_slots", "max_wal_senders"):
            del server.settings[name]  # which would be above those that ALTER SYSTEM writes
        with server.connect() as admin:
            admin.execute("alter system set max_replication_slots = 1")
            admin.execute("alter system set max_wal_senders = 1")
        server.restart()
        with server.connect() as admin:
            admin.execute("select pg_create_physical_replication_slot('standby')")
            admin.execute(f"create role {ADMIN} login createrole createdb replication bypassrls password 'penstock'")
            admin.execute(
                f"create role app nologin; grant app to {ADMIN}; grant create on database postgres to {ADMIN}"
            )
            admin.execute(f"grant usage, create on schema public to app; set role {ADMIN}")
            admin.execute("create schema sales; create table sales.t (id int primary key)")
            admin.execute("set role app")
            admin.execute("create table public.t (id int primary key)")
        yield server


@pytest.mark.parametrize("name", FULL)
def test_the_steps_of_a_provider_are_printed(name: str, source: PostgresServer, tmp_path: Path) -> None:
    pipe = pipe_at("db.example.com", source.port, tmp_path, provider=name)
    steps = plan(pipe)
    step = step_of(steps, "wal_level")
    assert step.state is State.BY_HAND
    assert step.fix.console or step.fix.cli or "on from the start" in step.fix.advice
    assert "{" not in step.fix.console + "".join(step.fix.cli).replace('{"', "").replace(':{"', "")
    assert step_of(steps, "max_replication_slots").state is State.BY_HAND
    assert [each.subject for each in steps if each.name == "replication"] == [ROLE]


def test_a_role_whose_name_has_words_of_sql(source: PostgresServer, tmp_path: Path) -> None:
    """What is given to it is taken back from the very same role."""
    pipe = pipe_at("db.example.com", source.port, tmp_path, provider="rds")
    dsn = pipe.source.dsn.replace(f"user={ROLE}", "user='a TO b'")
    pipe = pipe.model_copy(update={"source": pipe.source.model_copy(update={"dsn": dsn})})
    step = step_of(plan(pipe), "replication")
    assert step.fix.sql == ('GRANT rds_replication TO "a TO b";',)
    assert [each.what for each in step.back] == ['REVOKE rds_replication FROM "a TO b";']


def test_a_server_of_ones_own(source: PostgresServer, tmp_path: Path) -> None:
    pipe = pipe_at("db.example.com", source.port, tmp_path)

    def written() -> list[tuple[str, str]]:
        with source.connect() as admin:
            return admin.execute(
                "select name, setting from pg_file_settings where sourcefile like '%auto.conf' order by 1"
            ).fetchall()

    before = written()
    assert apply(pipe, tmp_path, Operator()) == {"restart": "by hand"}
    assert written() == [("max_replication_slots", "5"), ("max_wal_senders", "4"), ("wal_level", "logical")]
    undo(pipe, tmp_path, Operator())
    assert written() == before


def test_an_administrator_who_is_no_superuser(source: PostgresServer, tmp_path: Path) -> None:
    """As at Azure, Amazon and the others: who may make roles that replicate, and owns the tables, or is a member of who does."""
    pipe = pipe_at("db.example.com", source.port, tmp_path, tables=["public.*", "sales.*"])
    dsn = f"user={ADMIN} password=penstock"
    with asking(pipe, dsn=dsn) as asked:
        steps = course.apply(asked, Record(tmp_path, "shop"), Operator())
    assert left(steps) == {
        "wal_level": "by hand",  # ALTER SYSTEM is for superusers
        "max_replication_slots": "by hand",
        "max_wal_senders": "by hand",
        "restart": "by hand",
    }
    assert step_of(steps, "login").state is State.RIGHT
    assert step_of(steps, "publication").state is State.RIGHT
    with asking(pipe, dsn=dsn) as asked:
        course.undo(asked, Record(tmp_path, "shop"), Operator())
    with source.connect() as admin:
        assert admin.execute("select 1 from pg_roles where rolname = %s", (ROLE,)).fetchone() is None


def test_a_server_that_nobody_reaches(source: PostgresServer, tmp_path: Path, proxy_to: Callable[[int], Proxy]) -> None:
    """How the provider's firewall is opened."""
    proxy = proxy_to(source.port)
    proxy.blackhole()
    pipe = pipe_at("db.example.com", proxy.port, tmp_path, provider="crunchy")
    (step,) = plan(pipe, address="203.0.113.7/32")
    assert (step.name, step.state) == ("reach the source", State.BY_HAND)
    assert step.fix.cli == ("cb network add-firewall-rule --network NETWORK --rule 203.0.113.7/32",)
