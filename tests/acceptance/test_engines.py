"""The same pipe on older releases of ClickHouse: it runs as on the newest, with narrower types where they have to be, and says so."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from tests.acceptance.test_main_job import ROWS, SCHEMA
from tests.fix_pipe import Case
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_engines import ENGINES, NEWEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_postgres import Database

pytestmark = pytest.mark.pg("== 15")

NO_TIME64 = NO_JSON = ("24.8", "25.5")
EXTREMES = {  # what becomes of a date of the year 1 or 9999: before 26.7, and there
    "born": (["1900-01-01", "2299-12-31"], ["1900-01-01", "2299-12-31"]),
    "at": (
        ["1900-01-01 00:00:00.000000", "2299-12-31 23:59:59.999999"],
        ["0001-01-01 00:00:00.000000", "9999-12-31 23:59:59.999999"],
    ),
}


@pytest.fixture(params=[pytest.param(each, marks=[] if each == "24.8" else [pytest.mark.slow]) for each in ENGINES])
def engine(request: pytest.FixtureRequest) -> str:
    release: str = request.param
    return release


@pytest.fixture
def case(engine: str, database: Database, tmp_path: Path) -> Iterator[Case]:
    """A pipe into a server of that release; what cannot be one runs embedded, in front of the environment's own on the module path."""
    if ENGINES[engine].main:
        with ClickHouseServer(engine=engine) as server:
            yield Case(tmp_path, database, server.dsn(), server)
        return
    path = os.pathsep.join(filter(None, (str(ENGINES[engine].home()), os.environ.get("PYTHONPATH"))))
    yield Case(tmp_path, database, f"chdb://{tmp_path}/chdb", environment={"PYTHONPATH": path})


def test_the_main_job(case: Case, engine: str) -> None:
    case.database.execute(
        SCHEMA,
        ROWS.format(1, 500),
        "create table log (at timestamptz, what text, n numeric, f real)",
        "alter table log replica identity full",
        "insert into log select now() + i * interval '1 s', nullif('w' || i % 7, 'w3'), i, i / 3.0 from generate_series(1, 50) i",
        "create table measured (at timestamptz, f real, d double precision, big text, n int, primary key (at, f, d))",
        "alter table measured alter big set storage external",
        "insert into measured select timestamptz '2024-01-01' + i * interval '1 ms', i / 3.0, i / 7.0, repeat('b' || i, 3000), 0"
        " from generate_series(1, 50) i",
        "create extension hstore",
        "create table nested (id int primary key, ints int[], days date[], clocks time[], grid bigint[][])",
        "create table mapped (id int primary key, more hstore)",
        "insert into nested select i, array[i, null], array[date '2024-02-29' + i], array[time '24:00', null],"
        " array[array[1, i], array[null, 4]] from generate_series(1, 5) i",
        "insert into mapped select i, hstore(array['a', 'b'], array[i::text, null]) from generate_series(1, 5) i",
        "create table emptied as select i as id from generate_series(1, 10) i",
        "alter table emptied add primary key (id)",
    )
    case.define()
    case.once()
    assert case.query("select version()")[0][0].startswith(engine)
    tables = (
        "public.things",
        "public.empty_one",
        "public.single_row",
        "public.log",
        "public.measured",
        "public.emptied",
        "public.nested",
    )
    case.assert_equal(*tables)
    with case.running():
        case.database.execute(
            ROWS.format(501, 600),
            "update things set name = 'changed', amount = -0.01, flag = null where id between 100 and 150",
            "delete from things where id between 200 and 220",
            "update things set id = id + 100000 where id between 300 and 310",
            "update log set what = 'x' where n < 10",
            "delete from log where n > 40",
            "insert into log values (null, null, null, null)",
            "update measured set n = 1 where d > 3",  # completed from the destination, by a key of floats
            "insert into nested select id + 10, ints, days, clocks, grid from nested",
            "update mapped set more = more || 'c=>x'",
            "update nested set ints = array[7] where id = 11",
            "truncate emptied; insert into emptied values (77)",
        )
        case.wait_until(lambda: not any(map(case.differences, tables)), "both sides are equal")
    status = finished(case)
    assert case.query("select id, more['a'], more['b'], more['c'] from mapped_current order by id") == [
        [str(i), str(i), None, "x"] for i in range(1, 6)
    ]
    assert all(table["state"] == "streaming" for table in status["tables"])
    case.assert_equal(*tables)
    kept = case.query("select type from system.columns where database = 'shop' and table = 'things' and name = 'clock'")
    assert kept == [["Nullable(String)" if engine in NO_TIME64 else "Nullable(Time64(6))"]]


def test_what_is_narrower_is_said_and_counted(case: Case, engine: str) -> None:
    case.database.execute(
        "create table e (id int primary key, born date, at timestamp not null, seen timestamptz, clock time, feeling text, doc json)",
        "insert into e values (1, '0001-01-01', '0001-01-01', '2024-02-29 12:00+00', '24:00', null, '{\"a\": 1, \"a\": 2}')",
        "insert into e values (2, '9999-12-31', '9999-12-31 23:59:59.999999', null, '00:00:00.000001', 'x', '{\"a\":[1,true]}')",
    )
    case.define(settings='nullable = false\njson = "json"')
    found = json.loads(case.penstock("check", str(case.file), "--json").stdout)
    said = {each["problem"]: each for each in found if each["check"] == "destination_types"}
    assert all(each["severity"] == "info" and each["fix"] for each in said.values())
    expected = ["Date32 holds 1900-01-01 to 2299-12-31 only: public.e.born"]
    if engine != NEWEST:
        expected += [
            "DateTime64(6) holds 1900-01-01 to 2299-12-31 only: public.e.at",
            "DateTime64(6, 'UTC') holds 1900-01-01 to 2299-12-31 only: public.e.seen",
        ]
    if engine in NO_TIME64:
        expected += ["String in place of Time64(6): public.e.clock", "String in place of JSON: public.e.doc"]
    assert sorted(said) == sorted(expected)
    done = case.once()
    assert done.stderr.count("narrower types") == len(expected)
    case.database.execute("insert into e select id + 2, born, at, seen, clock, feeling, doc from e")
    (table,) = finished(case)["tables"]
    for column, ranges in EXTREMES.items():
        low, high = ranges[engine == NEWEST]
        assert case.query(f"select toString(`{column}`) from e_current order by id") == [[low], [high]] * 2
        assert sum(table["counters"].get(f"unfit {column}: {why}", 0) for why in ("out of range", "infinity")) == (
            0 if column == "at" and engine == NEWEST else 4
        )
    twice = '{"a": 1, "a": 2}' if engine in NO_JSON else "{}"
    assert case.query("select toString(doc) from e_current order by id") == [[twice], ['{"a":[1,true]}']] * 2
    assert table["counters"].get("unfit doc: refused by JSON", 0) == (0 if engine in NO_JSON else 2)
    clock = "" if engine in NO_TIME64 else ".000000"
    assert case.query("select toString(clock), feeling from e_current where id = 3") == [[f"24:00:00{clock}", ""]]


def finished(case: Case) -> dict[str, Any]:
    done = case.penstock("run", str(case.file), "--once", "--json")
    assert done.returncode == 0, done.stderr
    status: dict[str, Any] = json.loads(done.stdout)
    return status


def test_a_table_outlives_the_upgrade_of_its_server(database: Database, tmp_path: Path) -> None:
    """What 25.5 made is followed on by 26.7: a time and JSON stay String."""
    database.execute(
        "create table t (id int primary key, clock time, doc json)", "insert into t values (1, '12:30', '{ \"a\":1}')"
    )
    with ClickHouseServer(engine="25.5", data=tmp_path / "data") as server:
        case = Case(tmp_path, database, server.dsn(), server)
        case.define(settings='json = "json"')
        case.once()
        case.assert_equal("public.t")
        server.stop()
    database.execute("insert into t values (2, '24:00', '[1]')", "update t set clock = '01:02:03.4' where id = 1")
    with ClickHouseServer(engine=NEWEST, data=tmp_path / "data") as server:
        case = Case(tmp_path, database, server.dsn(), server)
        case.define(settings='json = "json"')
        done = case.once()
        assert "String in place of Time64(6): public.t.clock" in done.stderr
        assert "String in place of JSON: public.t.doc" in done.stderr
        case.assert_equal("public.t")
        assert case.penstock("resync", str(case.file), "public.t").returncode == 0
        assert "narrower types" not in case.once().stderr
        kinds = "toTypeName(clock), toTypeName(doc)"
        assert case.query(f"select {kinds}, toString(doc) from t_current order by id") == [
            ["Nullable(Time64(6))", "Nullable(JSON)", '{"a":1}'],
            ["Nullable(Time64(6))", "Nullable(JSON)", None],
        ]
