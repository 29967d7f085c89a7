"""The pipe is killed within every step of a change of a definition, and goes on from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fix_pipe import Case

KILLED = -9
TABLE = (
    "create table t (id int primary key, v text, n int)",
    "insert into t select i, 'v' || i, i from generate_series(1, 100) i",
)
ALTERED = (
    "insert into t values (101, 'before', 1)",
    "begin; alter table t rename v to w; alter table t add column x text not null default 'of then', alter n type bigint; commit",
    "insert into t values (102, 'after', 1000000000000, 'own')",
    "update t set n = n + 1 where id < 10",
)
COPIED_AGAIN = (
    "insert into t values (101, 'before', 1)",
    "alter table t alter n type text using n || '!', add column x int default 5",
    "insert into t values (102, 'after', 'y', 6)",
    "delete from t where id = 7",
)
READ_AGAIN = (
    "alter table t add column r double precision default random(), add column s serial",
    "update t set n = -1 where id < 10",
    "insert into t values (103, 'z', 4)",
)
MADE_AGAIN = ("drop table t", "create table t (id text primary key, w int)", "insert into t values ('a', 1)")


@pytest.mark.pg("== 15")
@pytest.mark.parametrize(
    ("place", "statements"),
    [
        ("after an alteration", ALTERED),
        pytest.param("after a fresh table", COPIED_AGAIN, marks=pytest.mark.slow),
        pytest.param("after an exchange", COPIED_AGAIN, marks=pytest.mark.slow),
        pytest.param("before an alteration", ALTERED, marks=pytest.mark.slow),
        pytest.param("after insert:2", ALTERED, marks=pytest.mark.slow),
        pytest.param("before an alteration", READ_AGAIN, marks=pytest.mark.slow),
        pytest.param("after an alteration", READ_AGAIN, marks=pytest.mark.slow),
        pytest.param("after a copy part", READ_AGAIN, marks=pytest.mark.slow),
        pytest.param("after set back", COPIED_AGAIN, marks=pytest.mark.slow),
        pytest.param("after a copy part", COPIED_AGAIN, marks=pytest.mark.slow),
        pytest.param("after putting aside", MADE_AGAIN, marks=pytest.mark.slow),
    ],
)
def test_killed(served: Case, place: str, statements: tuple[str, ...]) -> None:
    served.database.execute(*TABLE)
    served.define(settings='on_type_change = "resync"')
    served.once()
    served.database.execute(*statements)
    served.once(failpoint=place, expect=KILLED)
    served.database.execute("insert into t (id) values ('1000')")
    served.once()
    served.assert_equal("public.t")
    served.database.execute("delete from t where id = '1000'")
    served.once()
    served.assert_equal("public.t")
    left = served.query(
        "select name from system.tables where database = 'shop' and name not like '%dropped%' order by 1"
    )
    assert left == [["t"], ["t_current"]]


@pytest.mark.pg("== 15")
def test_killed_while_the_first_table_is_made(served: Case) -> None:
    """Its table goes, and another one comes under its name: the one in the destination is ours, though its id is not known yet."""
    served.database.execute(*TABLE)
    served.define()
    served.once(failpoint="after a table", expect=KILLED)
    assert served.query("select name from system.tables where database = 'shop'") == [["t"]]
    served.database.execute(*MADE_AGAIN)
    served.once()
    served.assert_equal("public.t")


@pytest.mark.pg("== 15")
def test_what_has_the_name_of_a_table_that_was_left_out(served: Case) -> None:
    """Long after a crash within its first start: somebody else's, which is not dropped with the pipe."""
    assert served.server
    served.database.execute(*TABLE, "create table u (id int primary key)")
    served.define()
    served.once(failpoint="after a table", expect=KILLED)
    ((made,),) = served.query("select create_table_query from system.tables where database = 'shop' and name = 't'")
    assert made
    served.server.query("drop table shop.t sync")
    served.define(tables='exclude = ["public.t"]')
    served.once()
    served.server.query(made)
    served.once()
    served.server.query("insert into shop.t (id) values (1)")
    assert served.penstock("drop", str(served.file), "--tables").returncode == 0
    assert served.query("select count() from t") == [["1"]]


@pytest.mark.slow
@pytest.mark.pg("== 15")
@pytest.mark.parametrize("then", ["is left out", "is dropped with its pipe"])
def test_killed_while_merges_are_stopped(served: Case, then: str) -> None:
    """They go on, by the limit that somebody has set, also where the rename is finished by nobody."""
    assert served.server
    limits = [f"max_bytes_to_merge_at_{which}_space_in_pool" for which in ("max", "min")]
    engine = "select engine_full from system.tables where database = 'shop' and name = 't'"
    served.database.execute(*TABLE, "create table u (id int primary key)")
    served.define()
    served.once()
    served.server.query(f"alter table shop.t modify setting {limits[0]} = 123456789")
    before = served.query(engine)
    served.database.execute(*ALTERED)
    served.once(failpoint="before an alteration", expect=KILLED)
    served.server.query(f"alter table shop.t modify setting {limits[0]} = 1, {limits[1]} = 1")  # as it does within
    served.define(tables='exclude = ["public.t"]')
    if then == "is left out":
        served.once()
    else:
        assert served.penstock("drop", str(served.file)).returncode == 0
    assert served.query(engine) == before
