"""What the destination is asked before a pipe runs, and what it can hold."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from tests.fix_clickhouse import destination_of
from tests.servers.clickhouse import ClickHouseServer

from penstock.clickhouse import capabilities, checks
from penstock.clickhouse.client import Client
from penstock.config import Destination
from penstock.errors import DestinationRefusedError
from penstock.finding import Finding, Severity

if TYPE_CHECKING:
    from tests.fix_clickhouse import Place

DAY_MICROS = 86_400_000_000
YEAR_1, YEAR_9999, YEAR_1900, YEAR_2299 = -719_162, 2_932_896, -25_567, 120_529


def blocking(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.severity is Severity.BLOCKING]


def test_nothing_blocks(place: Place) -> None:
    assert blocking(checks.check(place.client, place.database)) == []
    assert place.rows(f"select count() from system.tables where database = '{place.database}'") == [(0,)]


def test_a_database_that_is_to_be_made(place: Place) -> None:
    assert blocking(checks.check(place.client, f"{place.database} later")) == []


@pytest.mark.parametrize(
    ("user", "words"), [("limited", "lacks (INSERT, ALTER COLUMN|CREATE TABLE)"), ("reader", "read-only")]
)
def test_a_user_that_may_not_write(clickhouse_server: ClickHouseServer, tmp_path: Path, user: str, words: str) -> None:
    clickhouse_server.query("create database if not exists mine")
    with closing(Client.open(destination_of(clickhouse_server, user), scratch=tmp_path)) as client:
        (finding,) = blocking(checks.check(client, "mine"))
        assert finding.check == "destination_rights"
        assert re.search(words, finding.problem)
        assert finding.fix
        (finding,) = blocking(checks.check(client, "not_there"))
        assert re.search("not_there|default", finding.subject)  # 24.8 cannot be asked for rights


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with closing(Client.open(Destination(dsn="clickhouse://127.0.0.1:1"), scratch=tmp_path)) as client:
        (finding,) = checks.check(client, "shop")
    assert (finding.check, finding.severity) == ("destination_reachable", Severity.BLOCKING)
    assert finding.fix


def test_an_old_version(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "OLDEST", (99, 1))
    (finding,) = checks.check(place.client, place.database)
    assert (finding.check, finding.severity) == ("destination_version", Severity.BLOCKING)
    assert "needs 99.1 or newer" in finding.problem


def test_a_disk_that_is_nearly_full(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "NEARLY_FULL", 1.0)
    (finding,) = checks.check(place.client, place.database)
    assert (finding.check, finding.severity, finding.subject) == ("destination_disk", Severity.WARNING, "disk default")


def test_a_cluster_of_replicas(tmp_path: Path) -> None:
    replicas = "".join(f"<replica><host>127.0.0.{n}</host><port>9000</port></replica>" for n in (1, 2))
    cluster = f"<remote_servers><pair><shard>{replicas}</shard></pair></remote_servers>"
    with (
        ClickHouseServer(config=cluster) as server,
        closing(Client.open(destination_of(server), scratch=tmp_path)) as client,
    ):
        (finding,) = checks.check(client, "shop")
    assert (finding.check, finding.severity, finding.subject) == ("destination_topology", Severity.WARNING, "pair")
    assert "2 replicas" in finding.problem


def test_what_it_can_hold(place: Place) -> None:
    server = capabilities.ask(place.client)
    ((version,),) = place.client.rows("select version()")
    release = tuple(int(each) for each in version.split(".")[:2])
    assert (server.version, server.embedded) == (version, place.client.embedded)
    assert (server.time64, server.json) == (release >= (26, 1), release >= (25, 3))
    first, last = (YEAR_1, YEAR_9999) if release >= (26, 7) else (YEAR_1900, YEAR_2299)
    assert server.datetime64 == (first * DAY_MICROS, (last + 1) * DAY_MICROS - 1)
    assert server.date32 == ((YEAR_1, YEAR_9999) if release >= (26, 9) else (YEAR_1900, YEAR_2299))


def test_an_old_version_is_not_used(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "OLDEST", (99, 1))
    with pytest.raises(DestinationRefusedError, match=r"needs 99\.1 or newer"):
        capabilities.ask(place.client)


def test_rights_are_granted_as_printed(tmp_path: Path) -> None:
    """The server's users are of a file, so what is printed goes into that of another one."""
    folder = Path(checks.__file__).parent
    asked = {each for file in folder.glob("*.py") for each in re.findall(r"from (system\.\w+)", file.read_text())}
    assert "system.mutations" in asked
    grants = ["GRANT SELECT ON mine.*"]
    for last in (False, True):
        with (
            ClickHouseServer(grants="</query><query>".join(grants)) as server,
            closing(Client.open(destination_of(server, "limited"), scratch=tmp_path)) as client,
        ):
            server.query("create database mine")
            found = checks.check(client, "mine")
            assert bool(found) is not last, found
            grants += [each.removesuffix(" TO `limited`;") for finding in found for each in finding.fix.sql]
            for table in asked if last else ():
                client.rows(f"select count() from {table}")
            assert server.query("select count() from system.tables where name like 'penstock_check%'") == "0\n"
    assert grants[1].startswith("GRANT INSERT, ALTER COLUMN, ALTER DELETE, ALTER UPDATE, ALTER SETTINGS, CREATE")
    assert [each.rpartition(" ON ")[2] for each in grants[1:]] == [
        "`mine`.*",
        "ReplacingMergeTree",
        "`Null`",
        "system.merges",
        "system.mutations",
        "system.processes",
        "system.clusters",
        "system.disks",
    ]


def test_a_database_that_cannot_exchange_tables(place: Place) -> None:
    name = f"{place.database}_memory"
    place.run(f"create database {name} engine = Memory")
    try:
        found = {each.check: each for each in blocking(checks.check(place.client, name))}
    finally:
        place.run(f"drop database {name}")
    assert found["destination_engine"].subject == name
    assert "exchange two tables fails" in found["destination_rights"].problem


def test_settings_that_the_user_may_not_change(tmp_path: Path) -> None:
    fixed = "<async_insert><const/></async_insert><insert_deduplicate><const/></insert_deduplicate>"
    profile = {"async_insert": "1", "insert_deduplicate": "0", "constraints": fixed}
    with (
        ClickHouseServer(profile=profile) as server,
        closing(Client.open(destination_of(server), scratch=tmp_path)) as client,
    ):
        found = [each for each in blocking(checks.check(client, "default")) if each.check == "destination_settings"]
    (finding,) = found
    assert finding.subject == "async_insert"
    assert "async_insert = 0" in finding.fix.advice
    with (
        ClickHouseServer(profile={**profile, "async_insert": "0"}) as server,
        closing(Client.open(destination_of(server), scratch=tmp_path)) as client,
    ):
        assert checks.check(client, "default") == []


def test_a_replicated_database() -> None:
    """The servers here have none: there is no Keeper."""
    answers = {"engine": [("Replicated",)], "cloud_mode": []}

    class Answers:
        def rows(self, query: str, _parameters: object = None) -> list[tuple[str, ...]]:
            return next(rows for word, rows in answers.items() if word in query)

    (finding,) = checks.destination_engine(cast("Client", Answers()), "shop")
    assert (finding.check, finding.severity) == ("destination_topology", Severity.BLOCKING)
    assert "engine Atomic" in finding.fix.advice
    answers["cloud_mode"] = [("1",)]  # there the tables are shared
    assert list(checks.destination_engine(cast("Client", Answers()), "shop")) == []


def test_a_question_that_cannot_be_asked_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_DISKS", "select nonsense")
    (finding,) = [each for each in checks.check(place.client, place.database) if each.check == "destination_disk"]
    assert finding.severity is Severity.WARNING
    assert "could not be checked" in finding.problem
