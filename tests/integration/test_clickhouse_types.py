"""Every codec's values, from PostgreSQL's text through a Native block into ClickHouse and out again as its text."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.fix_clickhouse import Place, batch_of, destination_of
from tests.plans import pipe_of, table_of

from penstock.batch import Unfit
from penstock.clickhouse import capabilities, ddl, lookup
from penstock.clickhouse.client import Client
from penstock.clickhouse.writer import Writer
from penstock.pipeline import older
from penstock.plan import compile_plan
from penstock.typemap import Forms, target_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.clickhouse import ClickHouseServer

NINES = "9" * 38
TYPES: dict[str, list[tuple[str, str]]] = {
    "int2": [("-32768", "-32768"), ("32767", "32767")],
    "int4": [("-2147483648", "-2147483648"), ("2147483647", "2147483647")],
    "int8": [("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")],
    "oid": [("0", "0"), ("4294967295", "4294967295")],
    "float4": [("3.4028235e+38", "3.4028235e38"), ("NaN", "nan"), ("-Infinity", "-inf"), ("1e-45", "1e-45")],
    "float8": [
        ("1.7976931348623157e+308", "1.7976931348623157e308"),
        ("0.1", "0.1"),
        ("Infinity", "inf"),
        ("NaN", "nan"),
    ],
    "bool": [("t", "true"), ("f", "false")],
    "numeric(4,2)": [("-99.99", "-99.99"), ("0.01", "0.01")],
    "numeric(18,0)": [("999999999999999999", "999999999999999999")],
    "numeric(38,10)": [("-9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999")],
    "numeric(76,0)": [("9" * 76, "9" * 76), ("-" + "9" * 76, "-" + "9" * 76)],
    "numeric": [(f"{NINES}.{NINES}", f"{NINES}.{NINES}"), ("-1.5", "-1.5")],
    "numeric(100,2)": [("9" * 98 + ".25", "9" * 98 + ".25")],
    "text": [("", ""), ("it's 🐘\t\n\\", "it's 🐘\t\n\\"), ("x" * 300_000, "x" * 300_000)],
    "bytea": [("\\x", ""), ("\\x00ff", "\udc00ff")],
    "uuid": [("c0ffee00-0000-4000-8000-000000000001",) * 2, ("ffffffff-ffff-ffff-ffff-ffffffffffff",) * 2],
    "date": [("1900-01-01",) * 2, ("2299-12-31",) * 2, ("1970-01-01",) * 2],
    "timestamp": [("1900-01-01 00:00:00", "1900-01-01 00:00:00.000000"), ("2299-12-31 23:59:59.999999",) * 2],
    "timestamptz": [("2024-02-29 12:00:00.5+00", "2024-02-29 12:00:00.500000")],
    "time": [("24:00:00", "24:00:00.000000"), ("00:00:00.000001",) * 2],
    "jsonb": [('{"a": [1, 2.50]}',) * 2],
    "enum": [("red",) * 2, ("it's",) * 2],
    "interval": [("P1Y2M",) * 2],
    "int4[]": [("{1,NULL,-3}", "[1,NULL,-3]"), ("{}", "[]")],
    "text[]": [('{a,"b\\"c",NULL,"NULL","it\'s"}', "['a','b\"c',NULL,'NULL','it\\'s']")],
    "int8[][]": [("{{1,2},{NULL,4}}", "[[1,2],[NULL,4]]"), ("{}", "[]")],
    "numeric(4,2)[]": [("{1.50,-0.01}", "[1.5,-0.01]")],
    "enum[]": [("{red,NULL}", "['red',NULL]")],
    "vector[]": [('{"[1,2]","[3,4]"}', "[[1,2],[3,4]]")],
    "hstore": [('"a"=>"1", "b"=>NULL', "{'a':'1','b':NULL}"), ("", "{}")],
    "hstore[]": [('{"\\"a\\"=>\\"1\\"",""}', "[{'a':'1'},{}]")],
    "hstore[][]": [
        ('{{"\\"a\\"=>\\"1\\", \\"b\\"=>NULL",""},{"\\"c\\"=>\\"2\\"",""}}', "[[{'a':'1','b':NULL},{}],[{'c':'2'},{}]]")
    ],
    "vector[][]": [('{{"[1,2]","[3]"},{"[4]","[5]"}}', "[[[1,2],[3]],[[4],[5]]]")],
    "vector": [("[1,2.5,-3]", "[1,2.5,-3]")],
    "sparsevec": [("{1:0.5,3:2}/4", "[0.5,0,2,0]")],
    "geometry": [("0101000020E6100000000000000000F03F0000000000000040", "SRID=4326;POINT(1 2)")],
}
CASES = [(sql, text, expected) for sql, pairs in TYPES.items() for text, expected in pairs]


@pytest.mark.parametrize(
    ("sql", "text", "expected"), CASES, ids=[f"{sql}-{number}" for number, (sql, _, _) in enumerate(CASES)]
)
def test_a_value_arrives(place: Place, sql: str, text: str, expected: str) -> None:
    plan = place.table(f"id int4, a {sql}, b {sql}!")
    batch = batch_of(plan, ("1", text, text), ("2", None, text))
    nested = plan.columns[1].codec.nested
    assert batch.unfit == ((Unfit("a", "null", 1, (b"2",)),) if nested else ())
    Writer(place.client, place.database).insert(batch)
    shown = "hex(a), hex(b)" if sql == "bytea" else "toString(a), toString(b)"
    if sql == "bytea":
        expected = text.removeprefix("\\x").upper()
    if sql == "time" and "String" in plan.columns[1].clickhouse:  # there is no Time64
        expected = text
    assert place.rows(f"select id, {shown} from {{db}}.t order by id") == [
        (1, expected, expected),
        (2, ("{}" if sql == "hstore" else "[]") if nested else None, expected),
    ]


@pytest.mark.parametrize(
    ("sql", "text", "expected"), CASES, ids=[f"{sql}-{number}" for number, (sql, _, _) in enumerate(CASES)]
)
def test_a_value_is_found_by_its_key_and_read_back_as_it_was_sent(
    place: Place, sql: str, text: str, expected: str
) -> None:
    plan = place.table(f"id {sql}, other int4, a {sql}, b {sql}!", ("id", "other"))
    batch = batch_of(plan, (text, "5", text, text), (text, "6", None, text), version=9)
    Writer(place.client, place.database).insert(batch)
    found = lookup.newest(place.client, place.database, plan, [(text.encode(), b"6"), (text.encode(), b"5")], [2, 3])
    sent = batch.columns[3].values
    one = sent[: len(sent) // 2]
    full, empty = found[text.encode(), b"5"], found[text.encode(), b"6"]
    assert (full.version, full.deleted) == (9, False)
    assert [(value.null, value.data) for value in full.values.values()] == [(False, one)] * 2
    assert empty.values[2].null or plan.columns[2].codec.nested
    assert (empty.values[3].null, empty.values[3].data) == (False, one)


def test_null_is_one_value_a_type_where_nullable_is_off(place: Place) -> None:
    """The one that the docs list."""
    names = {sql: f"c{number}" for number, sql in enumerate(TYPES)}
    columns = ", ".join(f"{name} {sql}" for sql, name in names.items())
    server = capabilities.ask(place.client)
    plan = place.table(f"id int4, {columns}", nullable=False, json="json")
    zeros = [target_of(column, server, Forms(json="json")).zero for column in plan.table.columns[1:]]
    batch = batch_of(plan, ("1", *[None] * len(names)), ("2", *[pairs[0][0] for pairs in TYPES.values()]))
    assert batch.unfit == ()
    Writer(place.client, place.database).insert(batch)
    shown = ", ".join(f"toString({name})" for name in names.values())
    (row,) = place.rows(f"select {shown} from {{db}}.t where id = 1")
    assert dict(zip(names, map(_short, row), strict=True)) == dict(zip(names, map(_short, zeros), strict=True))


def _short(text: str) -> str:
    """Without the fraction of a second, and without what an older server shows of a time it keeps as text."""
    return text.removesuffix(".000000").removesuffix("00:00:00").strip()


@pytest.mark.parametrize("sql", ["text", "enum", "int4", "numeric(4,2)"])
@pytest.mark.parametrize("nullable", [True, False])
def test_low_cardinality(place: Place, sql: str, nullable: bool) -> None:
    types = {"a": "LowCardinality(String)", "b": "Array(LowCardinality(String))"}
    plan = place.table(f"id int4, a {sql}, b text[], n int4", options={"types": types}, nullable=nullable)
    shown = "LowCardinality(Nullable(String))" if nullable else "LowCardinality(String)"
    assert [column.clickhouse for column in plan.columns[1:3]] == [shown, "Array(LowCardinality(Nullable(String)))"]
    rows = (("1", "7", "{a,NULL,a}", "0"), ("2", None, "{}", "0"), ("3", "", "{b}", "0"), ("4", "7", "{}", "0"))
    Writer(place.client, place.database).insert(batch_of(plan, *rows, version=9))
    empty = None if nullable else ""
    assert place.rows("select a, b from {db}.t order by id") == [
        ("7", ["a", None, "a"]),
        (empty, []),
        ("", ["b"]),
        ("7", []),
    ]
    found = lookup.newest(place.client, place.database, plan, [(id_.encode(),) for id_, *_ in rows], [1, 2])
    values = [found[id_.encode(),].values[1] for id_, *_ in rows]
    assert [(value.null, value.data) for value in values] == [
        (False, b"\x017"),
        (nullable, b"\0"),
        (False, b"\0"),
        (False, b"\x017"),
    ]


def test_null_stays_null_in_a_column_with_a_default(place: Place) -> None:
    place.run(
        "create table {db}.t (id Int32, a Nullable(Int32) default 7, _version UInt128, _is_deleted UInt8)"
        " engine = ReplacingMergeTree(_version, _is_deleted) order by id"
    )
    plan = place.table("id int4, a int4")
    Writer(place.client, place.database).insert(batch_of(plan, ("1", None)))
    assert place.rows("select id, a from {db}.t") == [(1, None)]


def test_a_timestamp_is_shown_as_it_is_whatever_the_time_zone(
    clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    destination = destination_of(clickhouse_server, "abroad")
    with closing(Client.open(destination, scratch=tmp_path)) as client:
        place = Place(client, f"zone_{os.getpid()}", destination)
        place.run("create database {db}")
        plan = place.table("id int4, a timestamp, b timestamp[], c timestamptz")
        moment = "2024-07-01 12:00:00"
        Writer(client, place.database).insert(batch_of(plan, ("1", moment, f'{{"{moment}"}}', f"{moment}+00")))
        shown = place.rows("select timezone(), toString(a), toString(b), toString(c) from {db}.t")
        place.run("drop database {db} sync")
    assert shown == [("Europe/Berlin", f"{moment}.000000", f"['{moment}.000000']", f"{moment}.000000")]


def test_what_a_table_has_without_a_time_zone_is_kept(clickhouse_server: ClickHouseServer, tmp_path: Path) -> None:
    destination = destination_of(clickhouse_server, "abroad")
    with closing(Client.open(destination, scratch=tmp_path)) as client:
        place = Place(client, f"kept_{os.getpid()}", destination)
        place.run("create database {db}")
        server = capabilities.ask(client)
        assert not server.utc
        pipe = pipe_of()
        named = pipe.model_copy(
            update={"destination": pipe.destination.model_copy(update={"database": place.database})}
        )
        made, wanted = (
            compile_plan(table_of("id int4, a timestamp"), named, replace(server, utc=utc)) for utc in (True, False)
        )
        ddl.ensure_table(client, place.database, made)
        kept = older.as_stored(client, named, wanted, server)
        place.run("drop database {db} sync")
    assert kept.columns == made.columns != wanted.columns
