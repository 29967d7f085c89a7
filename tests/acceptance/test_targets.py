"""Tables in the destination that have the name of one that the pipe has filled, and are another: nothing of theirs is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import QUICK, streaming

if TYPE_CHECKING:
    from tests.fix_pipe import Case

pytestmark = pytest.mark.pg("== 15")
TABLES = ("a", "b", "c")
INSERTING = "select count() from system.processes where query ilike 'insert into `shop`.`a`%'"


def swapped(case: Case, *names: str) -> None:
    """Somebody has put tables of his own in the place of these: of the same layout, with other rows."""
    assert case.server
    for name in names:
        case.server.query(f"create table shop.mine as shop.{name}")
        case.server.query("insert into shop.mine (id, v) values (7, 'kept')")
        case.server.query(f"drop table shop.{name} sync")
        case.server.query(f"rename table shop.mine to shop.{name}")


def kept(case: Case, *names: str) -> bool:
    return all(case.query(f"select v from {name} where id = 7") == [["kept"]] for name in names)


def test_another_table_of_the_name_is_left_alone(served: Case) -> None:
    """By a TRUNCATE, a change of columns, a new copy, a new target, the next start, and at the end of the pipe."""
    served.database.execute(
        *(f"create table {name} (id int primary key, v text)" for name in TABLES),
        *(f"insert into {name} values (1, 'x')" for name in TABLES),
    )
    served.define(settings=QUICK + '\non_drop_column = "drop"')
    with served.running(expect=1):
        streaming(served, 3)
        swapped(served, *TABLES)
        served.database.execute("truncate a", "alter table b drop v", "insert into b values (2)")
        assert served.penstock("resync", str(served.file), "public.c").returncode == 0
        for name in TABLES:
            served.wait_until(lambda name=name: f"table=public.{name} " in _set_aside(served), f"{name} is set aside")
    assert kept(served, *TABLES)
    assert "a is another table than the one that this pipe has filled" in served.log()
    done = served.once(expect=1)
    assert kept(served, *TABLES), done.stderr
    assert served.server
    served.server.query("drop table shop.c sync")  # another one is not in the way any more
    assert served.penstock("resync", str(served.file), "public.c").returncode == 0
    served.once(expect=1)
    served.assert_equal("public.c")
    dropped = json.loads(served.penstock("drop", str(served.file), "--tables", "--json").stdout)["dropped"]
    assert "table shop.c" in dropped
    assert kept(served, "a", "b")


def _set_aside(case: Case) -> str:
    return "\n".join(line for line in case.log().splitlines() if "table set aside" in line)


def test_a_table_that_is_another_at_the_start_is_set_aside(served: Case) -> None:
    """It lacks what was written before, and is not filled on; it is not renamed either."""
    served.database.execute(
        "create table a (id int primary key, v text)", "create table b (id int primary key, v text)"
    )
    served.define()
    served.once()
    swapped(served, "a", "b")
    served.define(options='[tables.options."public.b"]\ntarget = "other"')
    served.database.execute("insert into a values (1, 'x')")
    done = served.once(expect=1)
    assert "shop.a is another table" in done.stderr.replace("\n", " ")
    assert kept(served, "a", "b")


@pytest.mark.slow
def test_a_table_that_is_copied_again_while_an_insert_takes_long_is_made_beside(served: Case) -> None:
    """The stream is at its goal before the lane comes to the step that says where the new table is."""
    assert served.server
    served.database.execute("create table a (id int primary key)", "insert into a select generate_series(1, 100)")
    served.define(settings=QUICK)
    with served.running(failpoint="after a fresh table", expect=-9) as process:
        streaming(served)
        served.server.query("create materialized view shop.slow engine = Null as select id, sleep(3) from shop.a")
        served.database.execute("insert into a values (101)")
        served.wait_until(lambda: served.query(INSERTING) != [["0"]], "the insert is under way")
        assert served.penstock("resync", str(served.file), "public.a").returncode == 0
        assert process.wait(30) == -9
    assert served.query("select count() > 99 from a") == [["1"]]
    assert served.query("select count() from system.tables where name like 'a_fresh_%' and database = 'shop'") == [
        ["1"]
    ]
    served.server.query("drop table shop.slow sync")
    served.once()
    served.assert_equal("public.a")
