"""Both ends in one pass: what is found about the tables of the destination, how it is printed, and that nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.fix_clickhouse import destination_of
from tests.servers.clickhouse import PASSWORD

from penstock.clickhouse import fit
from penstock.config import Pipe, Secret, parse
from penstock.control import checks
from penstock.control.store import StateStore
from penstock.finding import Finding, Severity
from penstock.pipeline.checkpoint import TableRecord

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_clickhouse import Place
    from tests.fix_pipe import Case
    from tests.fix_postgres import Database
    from tests.servers.clickhouse import ClickHouseServer

pytestmark = pytest.mark.pg("18")


def pipe_to(database: Database, server: ClickHouseServer, into: str, **sections: Any) -> Pipe:
    os.environ["PENSTOCK_TEST_PASSWORD"] = PASSWORD
    to = {"dsn": destination_of(server).dsn, "password": {"env": "PENSTOCK_TEST_PASSWORD"}, "database": into}
    definition = {"pipe": {"name": "shop"}, "source": {"dsn": database.dsn}, "destination": to, **sections}
    return parse(definition, origin="test")


def found(pipe: Pipe, folder: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in checks.check(pipe, folder) if finding.check == "targets"}


@pytest.mark.parametrize("destination", ["server"], indirect=True)
def test_names_that_are_taken(
    database: Database, place: Place, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    database.execute(*(f"create table {name} (id int primary key, v text)" for name in ("a", "b", "c", "d")))
    layout = "(id Int32, v Nullable(String), _version UInt128, _is_deleted UInt8, _synced_at DateTime64(3))"
    engine = "engine = ReplacingMergeTree(_version, _is_deleted) order by id"
    place.run(
        "create table {db}.a (id Int32) engine = MergeTree order by id",
        f"create table {{db}}.b {layout} {engine}",
        "insert into {db}.b (id) values (1)",
        f"create table {{db}}.c {layout} {engine}",
        "create view {db}.d_current as select 1",
    )
    pipe = pipe_to(database, clickhouse_server, place.database)
    there = found(pipe, tmp_path)
    assert {subject.rpartition(".")[2]: each.severity for subject, each in there.items()} == {
        "a": Severity.BLOCKING,
        "b": Severity.BLOCKING,
        "d_current": Severity.BLOCKING,
    }
    assert "does not fit: its engine is MergeTree" in there[f"{place.database}.a"].problem
    assert "holds rows" in there[f"{place.database}.b"].problem
    place.run("drop table {db}.a", "truncate table {db}.b", "drop view {db}.d_current")
    assert found(pipe, tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("destination", ["server"], indirect=True)
def test_tables_that_the_pipe_has_made_are_not_taken(
    database: Database, place: Place, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    database.execute("create table mine (id int primary key)", "create table theirs (id int primary key)")
    place.run(*(f"create table {{db}}.{name} (id Int8) engine = MergeTree order by id" for name in ("mine", "theirs")))
    with contextlib.closing(StateStore(tmp_path)) as store:
        for oid, name in enumerate(("mine", "theirs"), 1):
            target_id = fit.identity(place.client, place.database, "mine")  # by which alone it is known
            store.save_table("shop", TableRecord(oid, f"public.{name}", name, "", target_id=target_id))
    assert set(found(pipe_to(database, clickhouse_server, place.database), tmp_path)) == {f"{place.database}.theirs"}


def test_an_end_that_does_not_answer_hides_nothing_of_the_other(
    database: Database, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    database.execute("create table t (id int)")
    pipe = pipe_to(database, clickhouse_server, "shop")
    no_source = pipe.model_copy(update={"source": pipe.source.model_copy(update={"dsn": "host=127.0.0.1 port=1"})})
    (only,) = checks.check(no_source, tmp_path)
    assert (only.check, only.severity, only.subject) == ("source_reachable", Severity.BLOCKING, "127.0.0.1:1/")
    unset = pipe.source.model_copy(update={"password": Secret(env="PENSTOCK_TEST_NOT_SET")})
    (only,) = checks.check(pipe.model_copy(update={"source": unset}), tmp_path)
    assert (only.check, "NOT_SET is not set" in only.problem) == ("source_reachable", True)
    to = pipe.destination.model_copy(update={"dsn": "clickhouse://127.0.0.1:1"})
    names = {each.check for each in checks.check(pipe.model_copy(update={"destination": to}), tmp_path)}
    assert names == {"replica_identity", "destination_reachable"}
    redshift = "host=wh.abc.eu-west-1.redshift.amazonaws.com hostaddr=127.0.0.1 port=1"
    other = pipe.model_copy(update={"source": pipe.source.model_copy(update={"dsn": redshift})})
    (only,) = checks.check(other, tmp_path)
    assert (only.check, only.subject) == ("provider", "Amazon Redshift")


def test_what_the_definition_names_and_the_source_does_not_have(
    database: Database, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    database.execute("create table orders (id int primary key)", "create table bare (id int)")

    def asked(**tables: Any) -> dict[tuple[str, str], Finding]:
        pipe = pipe_to(database, clickhouse_server, "shop", tables=tables)
        return {(each.check, each.subject): each for each in checks.check(pipe, tmp_path)}

    found = asked(include=["public.ordres", "public.bare"], options={"public.gone": {}})
    assert set(found) == {("tables", "public.ordres"), ("tables", "public.gone"), ("replica_identity", "public.bare")}
    assert {each.severity for each in found.values()} == {Severity.BLOCKING}
    misspelt = found["tables", "public.ordres"]
    assert misspelt.problem == "tables.include names public.ordres, and the source has no such table"
    assert misspelt.fix.advice == "Did you mean public.orders?"
    assert asked(include=["public.orders"]) == {}
    (none,) = asked(include=["shop.*"]).values()
    assert (none.subject, "public.bare, public.orders" in none.fix.advice) == ("tables.include", True)
    database.execute("create schema other", "create table other.orders (id int primary key)")
    (clash,) = asked(include=["public.orders", "other.*"]).values()
    assert (clash.check, clash.severity) == ("definition", Severity.BLOCKING)
    assert asked(include=["public.orders", "other.*"], target="{schema}_{table}") == {}
    with contextlib.closing(StateStore(tmp_path)) as store:
        store.save_table("shop", TableRecord(1, "public.ordres", "ordres", ""))
    (gone,) = asked(include=["public.ordres", "public.orders"]).values()
    assert (gone.check, gone.severity) == ("tables", Severity.WARNING)


def test_what_the_destinations_dsn_alone_tells(tmp_path: Path) -> None:
    """Nobody listens there: the way is what it is nevertheless."""

    def defined(dsn: str, **more: Any) -> Pipe:
        ends = {"source": {"dsn": "host=127.0.0.1 port=1"}, "destination": {"dsn": dsn, **more}}
        return parse({"pipe": {"name": "shop"}, **ends}, origin="test")

    def found(dsn: str) -> list[Finding]:
        return [each for each in checks.check(defined(dsn), tmp_path) if each.check == "destination_encryption"]

    (plain,) = found("clickhouse://192.0.2.1:1?connect_timeout=1")
    assert (plain.severity, plain.subject) == (Severity.WARNING, "ClickHouse at 192.0.2.1:1")
    assert "secure=true" in plain.fix.advice
    assert found("clickhouse://192.0.2.1:1?connect_timeout=1&secure=true") == []
    assert found("clickhouse://127.0.0.1:1") == found(f"chdb://{tmp_path}/data") == []
    (tmp_path / "file").write_text("")
    _, folder = checks.check(defined(f"chdb://{tmp_path}/file/data"), tmp_path)
    assert (folder.check, f"cannot be made in {tmp_path}/file" in folder.problem) == ("destination_reachable", True)
    assert checks._plain(defined("clickhouse://192.0.2.1:1", ssh={"host": "jump"})) == []


def test_the_command(embedded: Case) -> None:
    embedded.database.execute("create table t (id int)", "create table u (id int primary key)")
    embedded.define()
    done = embedded.penstock("check", str(embedded.file), "--json", "--lang", "en")
    (finding,) = json.loads(done.stdout)
    assert done.returncode == 3
    assert finding == {
        "check": "replica_identity",
        "severity": "blocking",
        "subject": "public.t",
        "problem": "it has no primary key",
        "why": "Once it is published PostgreSQL refuses the application's UPDATE and DELETE on it.",
        "fix": {
            "advice": "Better than the statement: a primary key.",
            "sql": ['ALTER TABLE "public"."t" REPLICA IDENTITY FULL;'],
            "console": "",
            "cli": [],
            "terraform": "",
            "parameter": "",
        },
    }
    data = embedded.destination.removeprefix("chdb://")
    assert not os.path.exists(data)  # noqa: PTH110
    embedded.database.execute(*finding["fix"]["sql"])
    embedded.environment["LC_ALL"] = "ko_KR.UTF-8"
    done = embedded.penstock("check", str(embedded.file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "public.t: 키가 없습니다" in done.stdout
    assert done.stdout.endswith("양쪽 모두 준비되었습니다.\n")
    assert embedded.penstock("check", str(embedded.file), "--lang", "xx").returncode == 2


def test_a_pipe_that_runs(embedded: Case) -> None:
    embedded.database.execute("create table t (id int primary key)")
    embedded.define()
    with embedded.running():
        done = embedded.penstock("check", str(embedded.file), "--json")
        told = {each["check"]: each["severity"] for each in json.loads(done.stdout)}
        assert done.returncode == 0, done.stdout
        assert told.get("destination_busy") == "info"


@pytest.mark.slow
def test_500_tables_take_less_than_5_seconds(
    database: Database, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    with database.connect() as connection:
        connection.execute(
            "do $$ begin for n in 1..500 loop execute format("
            "'create table t%s (id int primary key, at timestamptz, note text)', n); end loop; end $$"
        )
    pipe = pipe_to(database, clickhouse_server, "shop")
    began = time.monotonic()
    assert not [each for each in checks.check(pipe, tmp_path) if each.severity is Severity.BLOCKING]
    assert time.monotonic() - began < 5
