"""Values that hold others, on their way through a whole pipe: the same through copy, insert and update."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fix_pipe import Case


VALUES = {
    "ints": ("int[]", "'{1,NULL,-3}'", "[1,NULL,-3]"),
    "words": ("text[]", """'{a,"b\\"c",NULL,"NULL"}'""", """['a','b"c',NULL,'NULL']"""),
    "grid": ("bigint[][]", "'{{1,2},{3,4}}'", "[[1,2],[3,4]]"),
    "prices": ("numeric(6,2)[]", "'{1.50,-0.01}'", "[1.5,-0.01]"),
    "moods": ("mood[]", "'{happy,NULL}'", "['happy',NULL]"),
    "shifted": ("int[]", "'[0:1]={7,8}'", "[7,8]"),
    "attributes": ("hstore", """'"a"=>"1", "b"=>NULL'""", "{'a':'1','b':NULL}"),
    "span": ("int4range", "'[1,10)'", "[1,10)"),
    "pair": ("pair", """'(1,"x,y")'""", '(1,"x,y")'),
    "label": ("mood", "'sad'", "sad"),
    "feelings": ("feeling[]", "'{sad,NULL}'", "['sad',NULL]"),
    "feeling": ("feeling", "'happy'", "happy"),
    "positive": ("positive", "7", "7"),
    "scores": ("scores", "'{1,NULL}'", "[1,NULL]"),
    "duo": ("duo", "'(1,x)'", "(1,x)"),
    "outer_pair": (
        "outer_pair",
        """row(row(1, 'a "b", \\c')::pair, null)""",
        '("(1,""a """"b"""", \\\\\\\\c"")",)',
    ),
    "word": ("citext", "'Öl'", "Öl"),
    "branch": ("ltree", "'a.b.c'", "a.b.c"),
    "page": ("xml", "'<a b=\"c\">x</a>'", '<a b="c">x</a>'),
    "cost": ("money", "'-1234.5'", "-$1,234.50"),
    "bits": ("bit(5)", "B'10101'", "10101"),
    "more_bits": ("bit varying", "B'1'", "1"),
    "terms": ("tsvector", "'fat:2 rat:3A'", "'fat':2 'rat':3A"),
    "search": ("tsquery", "'fat & !rat'", "'fat' & !'rat'"),
    "while": ("tstzrange", "'[2024-01-01 00:00+00,)'", '["2024-01-01 00:00:00+00",)'),
    "whiles": ("daterange[]", "'{\"[2024-01-01,2024-01-02)\",empty}'", "['[2024-01-01,2024-01-02)','empty']"),
    "own": ("floatrange", "'(1.5,2.5]'", "(1.5,2.5]"),
    "host": ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    "card": ("macaddr8", "'08:00:2b:01:02:03:04:05'", "08:00:2b:01:02:03:04:05"),
    "took": ("interval", "'-1 year 2 months 3 days 04:05:06.7'", "P-10M3DT4H5M6.7S"),
    "clock": ("timetz", "'12:30+02'", "12:30:00+02"),
    "lsn": ("pg_lsn", "'16/B374D848'", "16/B374D848"),
    "kind": ("regtype", "'integer'", "integer"),
    "old": ("int2vector", "'1 2 3'", "1 2 3"),
    "letter": ('"char"', "'x'", "x"),
    "padded": ("char(4)", "'ab'", "ab  "),
    "shape": ("polygon", "'((0,0),(1,1.5),(1,0))'", "((0,0),(1,1.5),(1,0))"),
    "path": ("jsonpath", "'$.\"a\"[*]'", '$."a"[*]'),
    "doc": ("json", '\' {"b":1,  "b":2.50}\'', ' {"b":1,  "b":2.50}'),
    "tag": ("varchar(20)", "'new'", "new"),
    "tags": ("text[]", "'{a,NULL,a}'", "['a',NULL,'a']"),
    "boxes": ("box[]", "'{(1,1),(0,0);(2,2),(1,1)}'", "['(1,1),(0,0)','(2,2),(1,1)']"),
}


def test_copy_insert_and_update_agree(case: Case) -> None:
    values_of = dict(VALUES)
    if case.database.server.version >= 14:
        values_of["spans"] = ("int4multirange", "'{[1,3),[5,7)}'", "{[1,3),[5,7)}")
    columns = ", ".join(f'"{name}" {type_}' for name, (type_, _, _) in values_of.items())
    values = ", ".join(f"{text}::{type_}" for type_, text, _ in values_of.values())
    case.database.execute(
        "create extension hstore",
        "create extension citext",
        "create extension ltree",
        "create type mood as enum ('happy', 'sad')",
        "create domain glad as mood",
        "create domain feeling as glad check (value::text <> 'x')",
        "create type pair as (a int, b text)",
        "create type outer_pair as (p pair, note text)",
        "create domain duo as pair",
        "create domain positive as int check (value > 0)",
        "create domain scores as int[]",
        "create type floatrange as range (subtype = float8)",
        f"create table t (id int primary key, {columns})",
        f"insert into t values (1, {values})",
    )
    types = 'types = { tag = "LowCardinality(String)", tags = "Array(LowCardinality(String))", label = "String" }'
    case.define(options=f'[tables.options."public.t"]\n{types}')
    with case.running():
        case.wait_for("select count() from t_current", 1)
        case.database.execute(
            f"insert into t values (2, {values})",
            "insert into t (id) values (3)",
            "update t set "
            + ", ".join(f'"{name}" = {text}::{type_}' for name, (type_, text, _) in values_of.items())
            + " where id = 3",
            "insert into t (id) values (4)",
            "alter type mood add value 'in between' before 'sad'",
        )
        case.database.execute(
            "insert into t (id, label, feeling, moods) values (5, 'in between', 'in between', '{in between}')"
        )
        case.wait_for("select count() from t_current where length(ints) = 3", 3)
        case.wait_for("select count() from t_current", 5)
    shown = ", ".join(f"toString(`{name}`)" for name in values_of)
    rows = case.query(f"select {shown} from t_current order by id")
    expected = [shown for _, _, shown in values_of.values()]
    for row in rows[:3]:
        assert dict(zip(values_of, row, strict=True)) == dict(zip(values_of, expected, strict=True))
    assert rows[3][:3] == ["[]", "[]", "[]"]
    assert rows[3][6] == "{}"
    assert rows[3][list(values_of).index("tag")] is None
    assert case.query("select label, feeling, moods from t_current where id = 5") == [
        ["in between", "in between", "['in between']"]
    ]
    assert case.query(
        "select type from system.columns where database = 'shop' and table = 't' and name in ('tag', 'tags', 'label') order by name"
    ) == [["Nullable(String)"], ["LowCardinality(Nullable(String))"], ["Array(LowCardinality(Nullable(String)))"]]


@pytest.mark.pg("== 15")
def test_what_an_array_cannot_hold_is_counted(served: Case) -> None:
    served.database.execute(
        "create table t (id int primary key, a int[][])", "insert into t values (1, '{1,2}'), (2, null), (3, '{{5}}')"
    )
    served.define()
    with served.running():
        served.wait_for("select count() from t_current", 3)
    assert served.query("select a from t_current order by id") == [["[]"], ["[]"], ["[[5]]"]]
    served.database.execute("alter table t replica identity default", "insert into t values (4, '{{1},{2}}')")
    served.once()
    assert served.query("select toString(a) from t_current where id = 4") == [["[[1],[2]]"]]
