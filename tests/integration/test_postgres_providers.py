"""Providers on a real server: recognised by settings, roles, schemas and functions that stand in for theirs, and by hosts.

A host is only a name here: ``hostaddr`` says where the server is.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.findings import check, named, one, pipe_of
from tests.scripts import ROOT
from tests.servers.postgres import PASSWORD, PostgresServer

from penstock.finding import Severity
from penstock.postgres import providers

if TYPE_CHECKING:
    from tests.fix_postgres import Database

    from penstock.finding import Finding
    from penstock.postgres.connection import Connection

AURORA = "create function public.aurora_version() returns text language sql as $$ select '16.1' $$"
RDS = "abc123.eu-west-1.rds.amazonaws.com"


def dsn(database: Database, host: str, **parameters: object) -> str:
    return database.server.dsn(database.name, host=host, hostaddr="127.0.0.1", **parameters)


def host_in(found: Finding) -> str:
    """The host that a fix names."""
    (host,) = re.findall(r"name (\S+)\.$", found.fix.advice)
    return str(host)


def test_a_plain_server_is_generic(connection: Connection) -> None:
    assert providers.recognise(connection, "127.0.0.1") == providers.Recognised(providers.PROVIDERS[-1])


MARKS = [
    ("rds.logical_replication", "rds"),
    ("azure.extensions", "azure"),
    ("cloudsql.logical_decoding", "cloudsql"),
    ("alloydb.logical_decoding", "alloydb"),
    ("neon.timeline_id", "neon"),
]


@pytest.mark.pg("18")
def test_providers_by_what_their_servers_have(database: Database) -> None:
    for setting, name in MARKS:
        with database.connect(options=f"-c {setting}=on") as connection:
            found = providers.recognise(connection, "10.0.0.1")
            assert (found.provider.name, found.mark) == (name, f"setting {setting}")
    database.execute(AURORA)
    with database.connect(options="-c rds.logical_replication=on") as connection:
        assert providers.recognise(connection, "10.0.0.1").provider.name == "aurora"
    database.execute("create schema heroku_ext")
    with database.connect() as connection:
        assert providers.recognise(connection, f"x.cluster-{RDS}").provider.name == "heroku"


@pytest.mark.parametrize("version", ["PostgreSQL 11.2-YB-2.20 on x86_64", "CockroachDB CCL v24.1", "… Redshift 1.0.6"])
@pytest.mark.pg("18")
def test_what_only_looks_like_postgresql(database: Database, version: str) -> None:
    with database.connect() as connection:
        connection.execute("set allow_system_table_mods = on")
        connection.execute(
            f"create or replace function pg_catalog.version() returns text language sql as $$ select '{version}' $$"
        )
    database.execute("create table t (id int primary key)")
    found = one(pipe_of(database.dsn), "provider")
    assert found.severity is Severity.BLOCKING
    assert "not PostgreSQL" in found.problem


@pytest.mark.pg("18")
def test_servers_that_can_only_be_copied(database: Database) -> None:
    database.execute("create table t (id int primary key)", "create schema heroku_ext")
    found = one(pipe_of(database.dsn), "provider")
    assert (found.severity, found.subject) == (Severity.BLOCKING, "Heroku Postgres")
    assert 'mode = "snapshot"' in found.fix.advice
    assert check(pipe_of(database.dsn, mode="snapshot")) == []


@pytest.mark.pg("18")
def test_endpoints(database: Database) -> None:
    database.execute("create table t (id int primary key)", AURORA)
    writer = f"shop.cluster-{RDS}"
    (recognised,) = check(pipe_of(dsn(database, writer)))
    assert (recognised.check, recognised.severity) == ("provider", Severity.INFO)
    assert recognised.problem == "known by function aurora_version"
    reader = one(pipe_of(dsn(database, f"shop.cluster-ro-{RDS}")), "endpoint")
    assert reader.severity is Severity.BLOCKING
    assert host_in(reader) == writer
    instance = one(pipe_of(dsn(database, f"shop-1.{RDS}")), "endpoint")
    assert instance.severity is Severity.WARNING
    assert ".cluster-" in instance.fix.advice
    proxy = one(pipe_of(dsn(database, f"shop.proxy-{RDS}")), "pooler")
    assert "RDS Proxy" in proxy.fix.advice
    assert named(pipe_of(dsn(database, host_in(reader))), "endpoint", "pooler") == []


@pytest.mark.pg("18")
def test_poolers_by_host(database: Database) -> None:
    database.execute("create table t (id int primary key)")
    neon = one(pipe_of(dsn(database, "ep-a-1-pooler.us-east-2.aws.neon.tech")), "pooler")
    assert host_in(neon) == "ep-a-1.us-east-2.aws.neon.tech"
    supabase = one(pipe_of(dsn(database, "aws-0-eu-west-1.pooler.supabase.com")), "pooler")
    assert "db.PROJECT.supabase.co" in supabase.fix.advice
    for direct in (host_in(neon), "db.abcdefghij.supabase.co"):
        assert named(pipe_of(dsn(database, direct)), "pooler") == []


@pytest.mark.pg("18")
def test_a_provider_that_is_named(database: Database) -> None:
    database.execute("create table t (id int primary key)")
    (found,) = check(pipe_of(database.dsn, provider="neon"))
    assert (found.subject, found.problem) == ("Neon", "named in the pipe")


@pytest.mark.pg("18")
def test_an_old_version(database: Database) -> None:
    database.execute("create table t (id int primary key)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(providers, "PROVIDERS", (replace(providers.PROVIDERS[-1], oldest=99),))
        found = one(pipe_of(database.dsn), "version")
    assert found.severity is Severity.BLOCKING
    assert "99 is the oldest" in found.problem


@pytest.mark.pg("15")
def test_logical_decoding_is_switched_on_where_the_provider_has_its_switch(
    postgres: PostgresServer,
) -> None:
    with PostgresServer(postgres.version, {"wal_level": "replica"}) as server:
        pipe = pipe_of(server.dsn(host=f"shop.cluster-{RDS}", hostaddr="127.0.0.1"))
        with server.connect() as admin:
            admin.execute("create table t (id int primary key)")
            admin.execute(AURORA)
            admin.execute("alter database postgres set rds.logical_replication = 'off'")
            off = one(pipe, "wal_level")
            assert (off.subject, off.severity) == ("rds.logical_replication", Severity.BLOCKING)
            assert "rds.logical_replication = 1" in off.fix.console
            assert "aws_rds_cluster_parameter_group" in off.fix.terraform
            assert any("aurora-postgresql15" in line for line in off.fix.cli)
            admin.execute("alter database postgres set rds.logical_replication = 'on'")
            pending = one(pipe, "wal_level")
            assert "not restarted since" in pending.problem
            assert "Reboot" in pending.fix.console
            assert "parameter-group" not in " ".join(pending.fix.cli)
            for host, words in (
                ("shop.postgres.database.azure.com", "az postgres flexible-server parameter set"),
                ("a.b.europe-west3.sql.goog", "--database-flags=cloudsql.logical_decoding=on"),
                ("ep-a-1.us-east-2.aws.neon.tech", "enable_logical_replication"),
            ):
                admin.execute("drop function if exists aurora_version")
                admin.execute("alter database postgres reset all")
                found = one(pipe_of(server.dsn(host=host, hostaddr="127.0.0.1")), "wal_level")
                assert words in " ".join(found.fix.cli)
        server.restart(wal_level="logical", max_replication_slots="0")
        assert named(pipe, "wal_level") == []
        full = one(pipe_of(server.dsn(), provider="neon"), "replication_slots")
        assert full.fix.advice == "The provider sets it, and lets nobody change it."


@pytest.mark.pg("18")
def test_the_generic_page_leads_to_a_source_that_is_ready(postgres: PostgresServer) -> None:
    """What docs/sources/generic.md says, and nothing else, on a server as it comes."""
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "sources" / "generic.md").read_text(), re.DOTALL)
    with PostgresServer(postgres.version, {"wal_level": "replica"}) as server:
        with server.connect() as admin:
            for table in ("orders", "customers"):
                admin.execute(f"create table {table} (id int primary key)")
            del server.settings["wal_level"]
            for statement in (line for block in blocks for line in block.splitlines() if not line.startswith("--")):
                admin.execute(statement.replace("choose-one", PASSWORD))
        server.restart()
        pipe = pipe_of(server.dsn(user="penstock"), publication="penstock")
        assert check(pipe) == []
