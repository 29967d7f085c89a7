"""Inserts that go wrong: killed and frozen servers, timeouts, full disks, failing views. Nothing is lost or doubled."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.fix_clickhouse import Place, batch_of, destination_of
from tests.servers.clickhouse import ClickHouseServer

from penstock.clickhouse import ddl
from penstock.clickhouse.client import Client, Into
from penstock.clickhouse.writer import Writer
from penstock.errors import (
    BadDataError,
    DestinationError,
    DestinationRefusedError,
    DestinationUnavailableError,
    SchemaConflictError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_SECONDS = 30.0
SLOW_VIEW = (
    "create table {db}.slow (id Int32) engine = Memory",
    "create materialized view {db}.mv to {db}.slow as select id from {db}.t where not ignore(sleepEachRow(3))",
)
INSERTS = "select count() from system.processes where query_kind = 'Insert'"


@contextmanager
def place_on(server: ClickHouseServer, scratch: Path, user: str = "penstock", **options: object) -> Iterator[Place]:
    """A database on a server of the test's own, which it may stop."""
    destination = destination_of(server, user, **options)
    with closing(Client.open(destination, scratch=scratch)) as client:
        place = Place(client, "mine", destination)
        server.query("create database if not exists mine")
        yield place


def wait_until(server: ClickHouseServer, query: str, answer: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while server.query(query).strip() != answer:
        assert time.monotonic() < deadline, f"{query} never gave {answer}"


def test_equal_blocks_are_not_swallowed(place: Place) -> None:
    place.run(
        "create table {db}.t (id Int32, _version UInt128, _is_deleted UInt8)"
        " engine = ReplacingMergeTree(_version, _is_deleted) order by id settings non_replicated_deduplication_window = 100"
    )
    plan = place.table("id int4")
    place.run("system stop merges {db}.t")
    for _ in range(2):
        Writer(place.client, place.database).insert(batch_of(plan, ("1",), version=1))
    assert place.rows("select count() from {db}.t") == [(2,)]


def test_more_than_a_hundred_partitions(place: Place) -> None:
    plan = place.table("id int4, note text", options={"partition_by": "id"})
    rows = [(str(number), "x") for number in range(150)]
    Writer(place.client, place.database).insert(batch_of(plan, *rows))
    assert place.rows("select count() from {db}.t") == [(150,)]


def test_a_column_that_was_dropped_is_a_conflict(place: Place) -> None:
    plan = place.table("id int4, note text")
    place.run("alter table {db}.t drop column note")
    with pytest.raises(SchemaConflictError, match=rf"^{place.database}\.t: a column is missing"):
        Writer(place.client, place.database).insert(batch_of(plan, ("1", "x")))


@pytest.mark.parametrize(
    ("sql", "changed"), [("int8", "Int32"), ("numeric(10,4)", "Decimal(10, 2)"), ("text", "Int32")]
)
def test_a_column_of_another_type_is_no_silent_conversion(place: Place, sql: str, changed: str) -> None:
    plan = place.table(f"id int4, x {sql}!", options={"types": {}}, nullable=False)
    place.run("drop table {db}.t sync")
    place.run(
        f"create table {{db}}.t (id Int32, x {changed}, _version UInt128, _is_deleted UInt8) engine = MergeTree order by id"
    )
    with pytest.raises((SchemaConflictError, BadDataError)):
        Writer(place.client, place.database).insert(batch_of(plan, ("1", "77")))
    assert place.rows("select count() from {db}.t") == [(0,)]


def test_a_table_that_is_gone(place: Place) -> None:
    plan = place.table("id int4")
    place.run("drop table {db}.t sync")
    with pytest.raises(SchemaConflictError, match="the table is gone"):
        Writer(place.client, place.database).insert(batch_of(plan, ("1",)))


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("mv", "toInt32(note)"),
        ("`my ``view: (x)`", "toInt32(note)"),
        ("mv", "throwIf(id = 1)"),
        ("mv", "nullIf(id, 1)"),
    ],
)
def test_a_failing_view_is_named(place: Place, name: str, expression: str) -> None:
    plan = place.table("id int4, note text!")
    place.run(
        "create table {db}.sink (n Int32) engine = Memory",
        f"create materialized view {{db}}.{name} to {{db}}.sink as select {expression} as n from {{db}}.t",
    )
    with pytest.raises(BadDataError) as caught:
        Writer(place.client, place.database).insert(batch_of(plan, ("1", "a-secret-value")))
    shown = f"{place.database}." + name.replace("``", "\\`")
    assert f"{place.database}.t: its materialized view {shown} failed (ClickHouse " in caught.value.message
    assert "a-secret-value" not in repr(caught.value) + caught.value.hint


def test_a_view_without_its_target_is_named(place: Place) -> None:
    plan = place.table("id int4")
    place.run(
        "create table {db}.sink (id Int32) engine = Memory",
        "create materialized view {db}.mv to {db}.sink as select id from {db}.t",
        "drop table {db}.sink sync",
    )
    with pytest.raises(BadDataError, match=r"the target table .*sink of one of its materialized views is gone"):
        Writer(place.client, place.database).insert(batch_of(plan, ("1",)))


def test_a_null_table_feeds_its_views(place: Place) -> None:
    plan = place.table("id int4, note text", options={"shape": "null"})
    place.run(
        "create table {db}.sink (id Int32, deleted UInt8) engine = Memory",
        "create materialized view {db}.mv to {db}.sink as select id, _is_deleted as deleted from {db}.t",
    )
    Writer(place.client, place.database).insert(batch_of(plan, ("1", "x"), version=2, deleted=True))
    assert place.rows("select * from {db}.sink") == [(1, 1)]


def test_many_tables_at_once(place: Place) -> None:
    plans = [place.table("id int4, note text", options={"target": f"t{number}"}) for number in range(6)]
    writer = Writer(place.client, place.database)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: writer.insert(batch_of(plans[n % 6], (str(n), "x" * n), version=n + 1)), range(60)))
    counts = [place.rows(f"select count(), sum(length(note)) from {{db}}.t{number}") for number in range(6)]
    assert counts == [[(10, sum(range(number, 60, 6)))] for number in range(6)]


def test_a_compressed_insert(clickhouse_server: ClickHouseServer, place: Place, tmp_path: Path) -> None:
    """Only loopback goes without lz4, and 127.1 does not look like it."""
    dsn = f"clickhouse://127.1:{clickhouse_server.http_port}"
    server_plan = place.plan("id int4, note text")
    destination = place.destination.model_copy(update={"dsn": dsn, "password": None})
    if place.client.embedded:
        clickhouse_server.query(f"create database {place.database}")
    with closing(Client.open(destination, scratch=tmp_path)) as client:
        ddl.ensure_table(client, place.database, server_plan)
        Writer(client, place.database).insert(batch_of(server_plan, ("1", "x" * 3_000_000), ("2", "")))
        found = client.rows(f"select id, length(note) from {place.database}.t order by id")
        client.command(f"drop database {place.database} sync") if place.client.embedded else None
    assert found == [(1, 3_000_000), (2, 0)]


def test_a_timed_out_insert_is_killed_before_it_is_reported(tmp_path: Path) -> None:
    with ClickHouseServer() as server, place_on(server, tmp_path) as place:
        plan = place.table("id int4")
        place.run(*SLOW_VIEW)
        with place_on(server, tmp_path, send_receive_timeout=2) as hurried:
            with pytest.raises(DestinationUnavailableError, match="did not answer in time"):
                Writer(hurried.client, place.database).insert(batch_of(plan, ("1",)))
            assert server.query(INSERTS) == "0\n"
        place.run("drop view {db}.mv sync")
        Writer(place.client, place.database).insert(batch_of(plan, ("1",)))
        assert place.rows("select id from {db}.t final order by id") == [(1,)]


def test_kill_ends_an_insert(place: Place) -> None:
    plan = place.table("id int4")
    place.run(*SLOW_VIEW)
    body = list(batch_of(plan, *((str(number),) for number in range(1000))).chunks())
    slow = {"max_block_size": 1, "function_sleep_max_microseconds_per_block": 0}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            place.client.insert, Into(place.database, "t", plan.column_names), body, settings=slow, query_id="slow-one"
        )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while place.rows("select count() from system.processes where query_kind = 'Insert'") == [(0,)]:
            assert time.monotonic() < deadline, "the insert was never seen"
        place.client.kill("slow-one")
        assert place.rows("select count() from system.processes where query_kind = 'Insert'") == [(0,)]
        with pytest.raises(DestinationUnavailableError, match="was cancelled"):
            running.result(DEADLINE_SECONDS)


@pytest.mark.parametrize("destination", ["server"], indirect=True)
def test_what_a_killed_process_left_is_ended_before_the_first_insert(place: Place) -> None:
    """Only what goes into the same table."""
    plan = place.table("id int4")
    place.run(*SLOW_VIEW)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(Writer(place.client, place.database).insert, batch_of(plan, ("1",)))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while place.rows(INSERTS) == [(0,)]:
            assert time.monotonic() < deadline, "the insert was never seen"
        writer = Writer(place.client, place.database)
        writer.settle("slow")
        assert place.rows(INSERTS) == [(1,)]
        writer.settle("t")
        assert place.rows(INSERTS) == [(0,)]
        with pytest.raises(DestinationUnavailableError, match="was cancelled"):
            running.result(DEADLINE_SECONDS)


def test_who_may_not_see_what_runs_may_insert(tmp_path: Path) -> None:
    with ClickHouseServer(grants="GRANT SELECT, INSERT, CREATE TABLE ON mine.*") as server:
        with place_on(server, tmp_path) as place:
            plan = place.table("id int4")
        with place_on(server, tmp_path, "limited") as place:
            with pytest.raises(DestinationRefusedError):
                place.rows("select count() from system.processes")
            Writer(place.client, place.database).insert(batch_of(plan, ("1",)))
            assert place.rows("select id from {db}.t") == [(1,)]


def test_a_frozen_server_is_asked_before_the_next_insert(tmp_path: Path) -> None:
    with ClickHouseServer() as server, place_on(server, tmp_path, send_receive_timeout=1) as place:
        plan = place.table("id int4, note text")
        writer = Writer(place.client, place.database)
        writer.insert(batch_of(plan, ("0", "x")))
        server.freeze()
        for _ in range(2):
            with pytest.raises(DestinationUnavailableError, match="did not answer in time"):
                writer.insert(batch_of(plan, ("1", "x" * 1000), version=1))
        server.thaw()
        writer.insert(batch_of(plan, ("1", "x" * 1000), version=1))
        assert server.query(INSERTS) == "0\n"
        assert place.rows("select id, length(note) from {db}.t final order by id") == [(0, 1), (1, 1000)]


def test_a_server_killed_within_an_insert(tmp_path: Path) -> None:
    with ClickHouseServer() as server, place_on(server, tmp_path) as place, ThreadPoolExecutor(1) as pool:
        plan = place.table("id int4")
        writer = Writer(place.client, place.database)
        writer.insert(batch_of(plan, ("0",)))
        place.run(*SLOW_VIEW)
        running = pool.submit(writer.insert, batch_of(plan, ("1",), version=1))
        wait_until(server, INSERTS, "1")
        server.kill()
        with pytest.raises(DestinationUnavailableError):
            running.result()
        with pytest.raises(DestinationUnavailableError, match="refused"):
            writer.insert(batch_of(plan, ("1",), version=1))
        server.start()
        place.run("drop view {db}.mv sync")
        writer.insert(batch_of(plan, ("1",), version=1))
        assert place.rows("select id from {db}.t final order by id") == [(0,), (1,)]


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    with ClickHouseServer() as server, place_on(server, tmp_path) as place:
        place.table("id int4")
    disk = "<default><keep_free_space_bytes>999999999999999</keep_free_space_bytes></default>"
    full = f"<storage_configuration><disks>{disk}</disks></storage_configuration>"
    with ClickHouseServer(config=full) as server, place_on(server, tmp_path) as place:
        plan = place.table("id int4")
        with pytest.raises(DestinationUnavailableError, match=r"^mine\.t: the disk is full") as caught:
            Writer(place.client, place.database).insert(batch_of(plan, ("1",)))
        assert "Free space" in caught.value.hint


@pytest.mark.parametrize(
    ("user", "kind", "words"),
    [
        (
            "limited",
            DestinationRefusedError,
            r"the user limited lacks INSERT\(.*\) ON mine\.t \(ClickHouse 497 ACCESS_DENIED\)$",
        ),
        ("reader", DestinationError, "read-only|a setting cannot be set"),
    ],
)
def test_users_that_may_not_write(
    clickhouse_server: ClickHouseServer, tmp_path: Path, user: str, kind: type[DestinationError], words: str
) -> None:
    with place_on(clickhouse_server, tmp_path) as place:
        plan = place.table("id int4")
    with place_on(clickhouse_server, tmp_path, user) as place, pytest.raises(kind, match=words):
        Writer(place.client, place.database).insert(batch_of(plan, ("1",)))
