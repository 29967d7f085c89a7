"""JSON on its way into ClickHouse's JSON: the same through copy, insert, update and what an UPDATE leaves out."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fix_pipe import Case

pytestmark = pytest.mark.pg("== 15")

TEXT = (
    '{"b": [1, "x", true, null, {"c": 2.5}], "a": {"d": "2024-01-01 00:00:00", "n": null}, "big": 9223372036854775807}'
)
SHOWN = '{"a":{"d":"2024-01-01 00:00:00"},"b":[1,"x",true,null,{"c":2.5}],"big":9223372036854775807}'
TWICE = '{"k": 1, "k": 2}'


def counters(case: Case, table: str = "public.t") -> dict[str, int]:
    """What did not fit in one more run."""
    before = case.counted().get(table, Counter())
    done = case.penstock("run", str(case.file), "--once", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = [each for each in json.loads(done.stdout)["tables"] if each["full_name"] == table]
    unfit = {name: count for name, count in found["counters"].items() if name.startswith("unfit")}
    assert ("did not fit" in found["note"]) == bool(unfit)
    return dict(Counter(unfit) - before)


def test_copy_insert_update_and_unchanged_values_agree(case: Case) -> None:
    """``long`` is stored out of line and left out of the UPDATE; the text of ``drifts`` would be read back as an integer."""
    long, drifts = ('{{"a": {}, "t": "{}"}}'.format(number, "x" * 5000) for number in ("1", "1.0"))
    case.database.execute(
        "create table t (id int primary key, a json, b jsonb not null, long json, drifts json, n int, whole jsonb)",
        "alter table t alter long set storage external, alter drifts set storage external",
        f"insert into t values (1, '{TEXT}', '{TEXT}', '{long}', '{drifts}', 0), (2, '{TWICE}', '[1]', null, 'null', 0)",
        "create table f (a jsonb, n int)",
        "alter table f replica identity full",
        "create table h (id int primary key, a jsonb, long json)",
        "alter table h alter long set storage external",
        f"insert into f values ('{TEXT}', 1), ('[1]', 2)",
        f"insert into h values (1, '{TEXT}', '{long}')",
    )
    case.define(settings='json = "json"', options='[tables.options."public.h"]\nshape = "history"')
    with case.running():
        case.wait_for("select count() from t_current", 2)
        case.database.execute(
            "insert into t select id + 10, a, b, long, drifts, n from t",
            "insert into t values (21, null, '1'), (22, '{}', '{}')",
            f"update t set a = '{TEXT}', b = '{TEXT}', long = '{long}', drifts = '{drifts}', n = 0 where id = 21",
            "update t set n = 1 where id in (1, 11)",  # completed
            "update t set id = 31, n = 1 where id = 21",
            "update t set whole = '{}' where id = 22",
            f"update f set a = '{TWICE}', n = 3 where n = 1",
            "delete from f where n = 2",
            "update h set a = '{}' where id = 1",
            f"insert into h values (2, '1e5', '{TWICE}')",
        )
        case.wait_for("select count() from t_current where n = 1", 3)
        case.wait_for("select count() from h", 3)
        case.wait_for("select n from f_current", 3)
    whole = "toString(a), toString(b), toString(long) = '{}', JSONAllPathsWithTypes(assumeNotNull(drifts))['a']"
    shown_long = '{"a":1,"t":"' + "x" * 5000 + '"}'
    rows = case.query(f"select id, {whole.format(shown_long)} from t_current where id in (1, 11, 31) order by id")
    assert rows == [[id_, SHOWN, SHOWN, "1", "Float64"] for id_ in ("1", "11", "31")]
    rest = case.query("select id, a, b, long, drifts, whole from t_current where id not in (1, 11, 31) order by id")
    assert rest == [
        ["2", None, None, None, None, None],
        ["12", None, None, None, None, None],
        ["22", "{}", "{}", None, None, "{}"],
    ]
    assert case.query("select type from system.columns where table = 'f' and name = 'a' and database = 'shop'") == [
        ["Nullable(String)"]  # without a key, JSON stays text
    ]
    assert case.query("select a, n from f_current") == [['{"k": 2}', "3"]]
    assert case.query("select a, toString(long) = '" + shown_long + "' from h order by id, _version") == [
        [SHOWN, "1"],
        ["{}", "1"],
        [None, None],
    ]
    said = [line for line in case.log().splitlines() if "values do not fit" in line]
    assert any('column=a why="refused by JSON" first_row="id = 2"' in line for line in said), said
    assert len(said) == len({line.partition("table=")[2] for line in said})
    assert not [line for line in said if TWICE in line or "k" in line.partition("fix=")[0].split("table=")[1]]


def test_each_value_is_counted_once_and_stops_its_table_where_it_is_to(served: Case) -> None:
    served.database.execute(
        "create table t (id int primary key, a json)",
        f"insert into t select i, case when i % 10 = 0 then '{TWICE}' when i % 10 = 1 then '[]' else '{{}}' end::json"
        " from generate_series(1, 1000) i",
    )
    served.define(settings='json = "json"\nnullable = false\nmax_batch_rows = 400')
    assert counters(served) == {"unfit a: no object": 100, "unfit a: refused by JSON": 100}
    assert served.query("select toString(a), count() from t_current group by a") == [["{}", "1000"]]
    served.database.execute(f"insert into t values (2000, '{TWICE}'), (2001, '{{}}')", f"update t set a = '{TWICE}'")
    assert counters(served) == {"unfit a: refused by JSON": 1003}
    served.define(settings='json = "json"\nnullable = false\non_unfit = "fail"')
    served.database.execute(f"insert into t values (3000, '{TWICE}')")
    done = served.penstock("run", str(served.file), "--once", "--json")
    assert done.returncode == 1
    (table,) = json.loads(done.stdout)["tables"]
    assert_named(table, "id = 3000")


def assert_named(table: dict[str, Any], row: str) -> None:
    assert table["state"] == "failed"
    assert f'column "a" of public.t, in the row with {row}, holds' in table["last_error"]
    assert "on_unfit" in table["note"]
    assert TWICE not in table["last_error"]
