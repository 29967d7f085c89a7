"""penstock setup at Azure's flexible servers, against a played API; the PostgreSQL behind it is a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.servers.postgres import PostgresServer
from tests.setups import Operator, apply, left, pipe_at, plan, step_of, undo

from penstock.errors import SourceRefusedError
from penstock.setup.step import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_azure import Azure


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(16) as server:
        with server.connect() as admin:
            admin.execute("create table t (id int primary key)")
        yield server


@pytest.fixture
def source(server: PostgresServer, microsoft: Azure) -> PostgresServer:
    """As Azure starts it: without logical decoding."""
    server.restart(wal_level="replica")
    microsoft.on_restart = lambda values: server.restart(wal_level=values["wal_level"])
    return server


def show(server: PostgresServer, what: str) -> list[tuple[str, ...]]:
    with server.connect() as admin:
        return admin.execute(what).fetchall()  # type: ignore[call-overload, no-any-return]


def test_parameter_restart_role_and_back(microsoft: Azure, source: PostgresServer, tmp_path: Path) -> None:
    pipe = pipe_at(microsoft.host, source.port, tmp_path)
    step = step_of(plan(pipe), "parameter")
    assert step.fix.cli == (
        "az postgres flexible-server parameter set --resource-group shop-group --server-name shop --name wal_level --value logical",
    )
    assert apply(pipe, tmp_path, Operator(restarts=False)) == {"restart": "needed", "wal_level": "by hand"}
    assert microsoft.restarted == 0
    assert left(plan(pipe)) == {"restart": "needed", "wal_level": "by hand"}
    operator = Operator()
    assert apply(pipe, tmp_path, operator) == {}
    assert (microsoft.restarted, operator.asked) == (1, ["server shop"])
    assert show(source, "show wal_level") == [("logical",)]
    config = "select rolconfig[1] from pg_roles where rolname = 'penstock_made'"
    assert show(source, config) == [("wal_sender_timeout=0",)]
    undo(pipe, tmp_path, operator)
    assert show(source, "show wal_level") == [("replica",)]
    assert show(source, config) == []
    assert microsoft.values == {"wal_level": "replica"}


def test_the_firewall_lets_addresses_in(microsoft: Azure, source: PostgresServer, tmp_path: Path) -> None:
    microsoft.rules["office"] = ("198.51.100.0", "198.51.100.255")
    pipe = pipe_at(microsoft.host, source.port, tmp_path)
    assert step_of(plan(pipe, address="198.51.100.7/32"), "firewall").state is State.RIGHT
    assert apply(pipe, tmp_path, Operator(), address="203.0.113.8/29") == {}
    assert microsoft.rules["penstock_shop"] == ("203.0.113.8", "203.0.113.15")
    undo(pipe, tmp_path, Operator())
    assert list(microsoft.rules) == ["office"]
    microsoft.public = "Disabled"
    assert step_of(plan(pipe, address="203.0.113.8/29"), "firewall").state is State.BY_HAND


def test_high_availability_and_virtual_endpoints(microsoft: Azure, source: PostgresServer, tmp_path: Path) -> None:
    microsoft.availability, microsoft.endpoints = "ZoneRedundant", ["pair.writer.postgres.database.azure.com"]
    pipe = pipe_at(microsoft.host, source.port, tmp_path)
    steps = plan(pipe)
    assert "pg_failover_slots" in step_of(steps, "high availability").fix.advice
    assert "pair.writer.postgres.database.azure.com" in step_of(steps, "endpoint").fix.advice
    microsoft.version = "17"
    through = pipe_at("pair.writer.postgres.database.azure.com", source.port, tmp_path)
    found = {step.subject: step.state for step in plan(through) if step.name in ("parameter", "endpoint")}
    assert found == {
        "wal_level": State.NEEDED,
        "sync_replication_slots": State.NEEDED,
        "hot_standby_feedback": State.NEEDED,
        "pair.writer.postgres.database.azure.com": State.RIGHT,
    }


def test_what_azure_refuses(
    microsoft: Azure, source: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    microsoft.refuses = "configurations"
    with pytest.raises(SourceRefusedError, match="parameter wal_level of server shop: AuthorizationFailed") as raised:
        apply(pipe_at(microsoft.host, source.port, tmp_path), tmp_path, Operator())
    assert "Contributor" in raised.value.hint
    step = step_of(plan(pipe_at("other.postgres.database.azure.com", source.port, tmp_path)), "Azure's API")
    assert step.what.endswith("has the name other.postgres.database.azure.com")
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID")
    steps = plan(pipe_at(microsoft.host, source.port, tmp_path))
    assert "AZURE_SUBSCRIPTION_ID" in step_of(steps, "Azure's API").fix.advice
    step = step_of(steps, "wal_level")
    assert (step.state, step.fix.cli[0].split()[:2]) == (State.BY_HAND, ["az", "postgres"])
