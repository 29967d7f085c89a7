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
    "boxes": ("box[]", "'{(1,1),(0,0);(2,2),(1,1)}'", "['(1,1),(0,0)','(2,2),(1,1)']"),
}


def test_copy_insert_and_update_agree(case: Case) -> None:
    columns = ", ".join(f"{name} {type_}" for name, (type_, _, _) in VALUES.items())
    values = ", ".join(f"{text}::{type_}" for type_, text, _ in VALUES.values())
    case.database.execute(
        "create extension hstore",
        "create type mood as enum ('happy', 'sad')",
        "create type pair as (a int, b text)",
        f"create table t (id int primary key, {columns})",
        f"insert into t values (1, {values})",
    )
    case.define()
    with case.running():
        case.wait_for("select count() from t_current", 1)
        case.database.execute(
            f"insert into t values (2, {values})",
            "insert into t (id) values (3)",
            "update t set " + ", ".join(f"{name} = {text}" for name, (_, text, _) in VALUES.items()) + " where id = 3",
            "insert into t (id) values (4)",
        )
        case.wait_for("select count() from t_current where length(ints) = 3", 3)
        case.wait_for("select count() from t_current", 4)
    shown = ", ".join(f"toString({name})" for name in VALUES)
    rows = case.query(f"select {shown} from t_current order by id")
    expected = [shown for _, _, shown in VALUES.values()]
    assert rows[:3] == [expected] * 3
    assert rows[3][:3] == ["[]", "[]", "[]"]
    assert rows[3][6] == "{}"


@pytest.mark.pg("== 15")
def test_what_an_array_cannot_hold_is_counted(embedded: Case) -> None:
    embedded.database.execute(
        "create table t (id int primary key, a int[][])", "insert into t values (1, '{1,2}'), (2, null), (3, '{{5}}')"
    )
    embedded.define()
    with embedded.running():
        embedded.wait_for("select count() from t_current", 3)
    assert embedded.query("select a from t_current order by id") == [["[]"], ["[]"], ["[[5]]"]]
    embedded.database.execute("alter table t replica identity default", "insert into t values (4, '{{1},{2}}')")
    embedded.once()
    assert embedded.query("select toString(a) from t_current where id = 4") == [["[[1],[2]]"]]
