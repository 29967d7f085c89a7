"""The client: statements, reads and inserts, embedded and over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from penstock.clickhouse import codes
from penstock.clickhouse.client import Client, Into, quoted
from penstock.config import Destination
from penstock.errors import (
    BadDataError,
    ConfigError,
    DestinationRefusedError,
    DestinationUnavailableError,
    PenstockError,
    SchemaConflictError,
    TargetConflictError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_clickhouse import Place

    from penstock.clickhouse.connect import Scalar

SETTINGS: dict[str, Scalar] = {"async_insert": 0}
SECRET = "hunter2-a-value-of-a-row"
NAMES = [
    "dotted.name",
    'quo"ted',
    '"x"',
    "back`tick",
    "`x`",
    "back\\slash",
    "\\",
    "it's",
    "emoji 🐘",
    "a\tb\nc",
    "select",
    "{a:Int8}",
    "%s",
]


def int32_block(name: str, *numbers: int) -> bytes:
    head = name.encode()
    return (
        bytes([1, len(numbers), len(head)])
        + head
        + b"\x05Int32"
        + b"".join(n.to_bytes(4, "little", signed=True) for n in numbers)
    )


def insert(place: Place, table: str, column: str, body: bytes) -> None:
    place.client.insert(Into(place.database, table, (column,)), [body], settings=SETTINGS, query_id="a-test")


def test_rows_with_bound_values(place: Place) -> None:
    values = ["it's", "back\\slash", "tab\tnew\nline", "{x:Int8}", "é🐘", "%s"]
    query = "select {texts:Array(String)}, {number:UInt128}, {text:String}"
    parameters = {"texts": values, "number": 2**127, "text": values[2]}
    ((texts, number, text),) = place.client.rows(query, parameters)
    assert (texts, number, text) == (values, 2**127, values[2])


@pytest.mark.parametrize("name", NAMES)
def test_any_name_works(place: Place, name: str) -> None:
    table = f"{quoted(place.database)}.{quoted(name)}"
    place.client.command(f"create table {table} ({quoted(name)} Int32) engine = MergeTree order by {quoted(name)}")
    insert(place, name, name, int32_block(name, -1, 7))
    assert place.client.rows(f"select {quoted(name)} from {table}") == [(-1,), (7,)]
    found = place.rows(f"select name, table from system.columns where database = '{place.database}'")
    assert found == [(name, name)]


def test_insert_in_many_chunks(place: Place) -> None:
    place.run("create table {db}.t (id Int32) engine = MergeTree order by id")
    body = int32_block("id", *range(100))
    place.client.insert(
        Into(place.database, "t", ("id",)),
        (body[at : at + 7] for at in range(0, len(body), 7)),
        settings=SETTINGS,
        query_id="chunks",
    )
    assert place.rows("select count(), sum(id) from {db}.t") == [(100, 4950)]


def test_native_and_raw(place: Place) -> None:
    assert place.client.native("select 1::Int32 as id") == int32_block("id", 1)
    place.run("create table {db}.t (id Int32) engine = MergeTree order by id", "insert into {db}.t values (1), (2)")
    answer = place.client.raw("select id from t order by id;  ", "JSONEachRow", database=place.database)
    assert [json.loads(line) for line in answer.splitlines()] == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into t select 3",
        "drop table t",
        "truncate table t",
        "alter table t add column x Int8",
        "set readonly = 0",
    ],
)
def test_raw_can_only_read(place: Place, statement: str) -> None:
    place.run("create table {db}.t (id Int32) engine = MergeTree order by id", "insert into {db}.t values (1)")
    with pytest.raises(ConfigError):
        place.client.raw(statement, "CSV", database=place.database)
    assert place.client.raw("select * from t", "CSV", database=place.database) == b"1\n"
    place.run("insert into {db}.t values (2)")  # writing still works for the pipe


def test_raw_says_what_is_wrong(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"nowhere"):
        place.client.raw("select * from nowhere", "CSV", database=place.database)
    with pytest.raises(ConfigError, match=r"Syntax error: failed at position") as caught:
        place.client.raw("select 1 1", "CSV", database=place.database)
    assert "Expected one of" not in caught.value.message


def test_an_error_leaves_nothing_in_the_next_answer(place: Place) -> None:
    """chDB 4.4 keeps what a failed statement had written; the connection is thrown away."""
    for _ in range(3):
        with pytest.raises(PenstockError):
            place.client.native("select number, throwIf(number = 70000) from numbers(100000)")
        assert place.client.native("select 1::Int32 as id") == int32_block("id", 1)


def test_threads_share_a_client(place: Place) -> None:
    def ask(number: int) -> list[tuple[int]]:
        return place.client.rows("select sum(number) + {n:UInt64} from numbers(100000)", {"n": number})

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(40))) == [[(4999950000 + n,)] for n in range(40)]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("select * from {db}.nowhere", TargetConflictError),
        ("select * from nowhere.nowhere", SchemaConflictError),
        ("select nothing from {db}.t", TargetConflictError),
        ("create table {db}.t (id Int32) engine = MergeTree order by id", SchemaConflictError),
        ("select cast('" + SECRET + "' as Int32)", BadDataError),
        ("select throwIf(1, '" + SECRET + "')", DestinationRefusedError),
        ("select nosuchfunction('" + SECRET + "')", DestinationRefusedError),
        (
            "select groupArray(number) from numbers(10000000) settings max_memory_usage = 1000000",
            DestinationUnavailableError,
        ),
        ("select count() from numbers(100000000000) settings max_execution_time = 0.2", DestinationUnavailableError),
    ],
)
def test_errors_are_translated_and_hold_no_values(place: Place, sql: str, kind: type[PenstockError]) -> None:
    place.run("create table {db}.t (id Int32) engine = MergeTree order by id")
    with pytest.raises(PenstockError) as caught:
        place.client.command(sql.replace("{db}", quoted(place.database)), subject="the orders")
    error = caught.value
    assert type(error) is kind
    assert error.message.startswith("the orders: ")
    assert error.hint
    assert SECRET not in repr(error) + error.hint
    assert error.__cause__ is None


def test_every_code_is_one_of_clickhouses(place: Place) -> None:
    query = "select code from (select arrayJoin({codes:Array(Int32)}) as code) where errorCodeToName(code) = ''"
    unknown = place.client.rows(query, {"codes": list(codes.MEANINGS)})
    ((version,),) = place.client.rows("select version()")
    assert unknown == [] or int(version.split(".")[0]) < 26, unknown  # there are newer ones
    assert all(meaning.problem and meaning.hint for meaning in codes.MEANINGS.values())


def test_a_cut_off_block_is_bad_data(place: Place) -> None:
    place.run("create table {db}.t (id Int32) engine = MergeTree order by id")
    with pytest.raises(BadDataError, match=rf"^{place.database}\.t: "):
        insert(place, "t", "id", int32_block("id", 1, 2)[:-3])
    assert place.rows("select count() from {db}.t") == [(0,)]


def test_too_many_parts_is_retried(place: Place) -> None:
    place.run(
        "create table {db}.t (id Int32) engine = MergeTree order by id settings parts_to_throw_insert = 2, parts_to_delay_insert = 2",
        "system stop merges {db}.t",
    )
    insert(place, "t", "id", int32_block("id", 1))
    insert(place, "t", "id", int32_block("id", 2))
    with pytest.raises(DestinationUnavailableError, match="too many parts"):
        insert(place, "t", "id", int32_block("id", 3))
    assert place.rows("select id from {db}.t order by id") == [(1,), (2,)]


def test_kill_returns_when_nothing_runs(place: Place) -> None:
    place.client.kill("no such insert")


def test_settings_that_a_server_knows(place: Place) -> None:
    assert place.client.knows("async_insert")
    assert not place.client.knows("no_such_setting")


def test_closed_is_closed(destination: Destination, place: Place, tmp_path: Path) -> None:
    client = Client.open(destination, scratch=tmp_path / "scratch")
    assert client.rows("select 1") == [(1,)]
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.rows("select 1")
    assert place.client.rows("select 2") == [(2,)]


OPEN = """
import sys
from pathlib import Path
from penstock.clickhouse.client import Client
from penstock.config import Destination
from penstock.errors import PenstockError
try:
    client = Client.open(Destination(dsn=f"chdb://{sys.argv[1]}"), scratch=Path(sys.argv[2]))
except PenstockError as error:
    print(type(error).__name__, error.message, error.hint)
else:
    print(client.rows("select 1"))
    client.close()
"""


def open_elsewhere(folder: Path, scratch: Path) -> str:
    command = [sys.executable, "-c", OPEN, str(folder), str(scratch)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("destination", ["embedded"], indirect=True)
def test_a_folder_belongs_to_one_process(place: Place, chdb_folder: Path, tmp_path: Path) -> None:
    assert place.client.embedded
    answer = open_elsewhere(chdb_folder, tmp_path / "scratch")
    assert answer.startswith("DestinationRefusedError")
    assert f"process {os.getpid()} uses it" in answer


@pytest.mark.parametrize("destination", ["embedded"], indirect=True)
def test_a_process_has_one_folder(place: Place, tmp_path: Path) -> None:
    assert place.client.embedded
    with pytest.raises(DestinationRefusedError, match="another chDB folder"):
        Client.open(Destination(dsn=f"chdb://{tmp_path}/other"), scratch=tmp_path / "scratch")


def test_bodies_of_an_earlier_process_are_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "left.native").write_bytes(b"x")
    (scratch / "mine.txt").write_bytes(b"x")
    assert open_elsewhere(tmp_path / "data", scratch) == "[(1,)]\n"
    assert [each.name for each in scratch.iterdir()] == ["mine.txt"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = open_elsewhere(tmp_path / "file" / "data", tmp_path / "scratch")
    assert answer.startswith("DestinationRefusedError the folder")
