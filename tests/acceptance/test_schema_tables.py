"""Tables that come, go, move, are copied again, and are changed by hand at the destination."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import QUICK, streaming

if TYPE_CHECKING:
    from tests.fix_pipe import Case

TABLE = (
    "create table t (id int primary key, v text)",
    "insert into t select i, 'v' || i from generate_series(1, 100) i",
)


def test_new_tables_are_taken_in(served: Case) -> None:
    served.database.execute(*TABLE)
    served.define(settings=QUICK, tables='exclude = ["public.secret*"]')
    with served.running(expect=1):  # because of the one without a key
        streaming(served)
        served.database.execute(
            "begin; create table more (id int primary key, v text); insert into more values (1, 'at once'); commit",
            "insert into more values (2, 'right after')",
            "create table secrets (id int primary key)",
            "create table keyless (id int)",
            "insert into keyless values (1)",
        )
        served.wait_for("select count() from more_current", 2)
        served.database.execute(
            "insert into more select i, 'later' from generate_series(3, 50) i", "delete from more where id = 1"
        )
        served.wait_for("select count() from more_current", 49)
        streaming(served, 2)
        served.assert_equal("public.t", "public.more")
        served.wait_until(lambda: "table refused" in served.log(), "the table without a key is named")
        served.database.execute("delete from keyless")  # which the source would refuse if it were published
    assert served.query("select count() from system.tables where name in ('secrets', 'keyless')") == [["0"]]
    served.database.execute(
        "drop table keyless", "create table down (id int primary key)", "insert into down values (1)"
    )
    served.once()
    served.assert_equal("public.t", "public.more", "public.down")


@pytest.mark.slow
def test_new_tables_are_only_told(served: Case) -> None:
    served.database.execute(*TABLE)
    served.define(settings=QUICK + '\non_new_table = "report"')
    with served.running():
        streaming(served)
        served.database.execute("create table more (id int primary key)")
        served.wait_until(lambda: "table=public.more" in served.log(), "the table is named", 20)
        assert served.database.fetch("select tablename from pg_publication_tables") == [("t",)]


@pytest.mark.slow
def test_a_table_is_renamed_and_moved(served: Case) -> None:
    served.database.execute(*TABLE, "create schema other")
    served.define(settings=QUICK, tables='include = ["public.*", "other.*"]')
    with served.running():
        streaming(served)
        served.database.execute(
            "insert into t values (101, 'before')",
            "alter table t rename to renamed",
            "insert into renamed values (102, 'y')",
        )
        served.wait_for("select count() from renamed_current", 102)
        served.assert_equal("public.renamed")
        served.database.execute(
            "alter table renamed set schema other", "alter table other.renamed add column w int default 4"
        )
        served.wait_for("select count(w) from renamed_current", 102)
        served.assert_equal("other.renamed")
    served.database.execute("alter table other.renamed rename to again", "insert into other.again values (103, 'z', 1)")
    served.once()
    served.assert_equal("other.again")
    assert served.query("select count() from system.tables where database = 'shop'") == [["2"]]


@pytest.mark.slow
def test_tables_change_places(served: Case) -> None:
    served.database.execute(
        *TABLE, "create table t_new (id int primary key, v text)", "insert into t_new values (1, 'new')"
    )
    served.define(settings=QUICK)
    with served.running():
        streaming(served, 2)
        served.database.execute(
            "begin; alter table t rename to t_old; alter table t_new rename to t; commit",
            "insert into t values (2, 'x')",
        )
        served.wait_for("select count() from t_current", 2, 20)
        served.wait_for("select count() from t_old_current", 100, 20)
        served.assert_equal("public.t", "public.t_old")
        served.database.execute(
            "begin; alter table t rename to x; alter table t_old rename to t; alter table x rename to t_old; commit",
            "insert into t values (1000, 'swapped')",
        )
        served.wait_for("select count() from t_current", 101, 30)
        served.wait_for("select count() from t_old_current", 2, 30)
        served.assert_equal("public.t", "public.t_old")
    served.once()
    served.assert_equal("public.t", "public.t_old")


def test_a_table_is_dropped_and_made_again(served: Case) -> None:
    served.database.execute(*TABLE, "create table u (id int primary key)")
    served.define(settings=QUICK)
    with served.running():
        streaming(served, 2)
        served.database.execute(
            "insert into t values (101, 'last')",
            "drop table t",
            "create table t (id text primary key, w int)",
            "insert into t values ('a', 1)",
        )
        served.wait_for("select count(w) from t_current", 1, 20)
        served.assert_equal("public.t")
        found = re.search(r"dropped table put aside.*now=(\w+)", served.log())
        assert found
        assert served.query(f"select count() from {found[1]}") == [["101"]]
        served.database.execute("insert into t values ('b', 1)", "insert into u values (1)")
        served.wait_for("select count() from t_current", 2)
        served.assert_equal("public.t", "public.u")


ROUND = "begin; alter table a rename to x; alter table c rename to a; alter table b rename to c; alter table x rename to b; commit"


@pytest.mark.pg("== 15")
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_names_go_from_table_to_table(served: Case, *, running: bool) -> None:
    """Round between three, on to a new table, and from a table that is dropped to one that is not."""
    names = "abcde"
    served.database.execute(
        *(f"create table {each} (id int primary key, v text)" for each in names),
        *(f"insert into {each} select i, '{each}' from generate_series(1, 5) i" for each in names),
    )
    served.define(settings=QUICK)
    changed = [
        ROUND,
        *(f"insert into {each} values (10, 'as {each}')" for each in names),
        "insert into d values (11, 'last')",
        "begin; drop table d; alter table e rename to d; commit",
        "begin; alter table a rename to f; create table a (other int primary key); insert into a values (7); commit",
    ]
    with served.running():
        streaming(served, 5)
        if running:
            served.database.execute(*changed)
            served.wait_for("select count(other) from a_current", 1, 30)
            served.wait_for("select count() from d_current where v = 'e'", 5, 30)
            served.wait_for("select count() from c_current where v = 'b'", 5, 30)
    if not running:
        served.database.execute(*changed)
        served.once()
    served.assert_equal(*(f"public.{each}" for each in "abcdf"))
    aside = served.query("select name from system.tables where database = 'shop' and name like 'd_dropped_%'")
    assert served.query(f"select count() from {aside[0][0]}") == [["7"]] if running else aside
    tables = served.query("select count() from system.tables where database = 'shop'")
    assert tables == [["11"]]  # five with their views, and what was dropped


@pytest.mark.pg("== 15")
@pytest.mark.parametrize("again", [False, True], ids=["new", "again"])
def test_a_name_that_is_taken_while_the_pipe_is_down(served: Case, *, again: bool) -> None:
    """By a table that still waits for its copy, from one that was dropped."""
    served.database.execute("create table a (id int primary key, v timestamp)", "insert into a values (1, now())")
    if again:
        served.database.execute("create table b (id int primary key, v int)", "insert into b values (1, 2)")
    served.define(settings=QUICK + '\non_type_change = "resync"')
    served.once()
    served.database.execute("drop table a")
    if again:
        served.database.execute("alter table b alter v type text", "insert into b values (2, 'b')")
    else:
        served.database.execute("create table b (id int primary key, v text)", "insert into b values (2, 'b')")
    served.once(failpoint="after a fresh table", expect=-9)
    served.database.execute("alter table b rename to a", "insert into a values (3, 'a')")
    assert served.penstock("run", str(served.file), "--once").returncode in (0, 1)  # what was dropped is set aside once
    served.once()
    served.assert_equal("public.a")
    tables = [name for (name,) in served.query("select name from system.tables where database = 'shop' order by 1")]
    assert tables[:2] == ["a", "a_current"]
    assert len(tables) == 3
    assert tables[2].startswith("a_dropped_")


@pytest.mark.pg("== 15")
def test_a_table_that_is_copied_again_has_another_name(served: Case) -> None:
    """And another one has its old name by then; a table without a key is renamed while it is copied."""
    served.database.execute(
        "create table a (id int primary key, v text)",
        "create table b (id int primary key, w int)",
        "insert into a values (1, '7')",
        "insert into b values (1, 1), (2, 2)",
    )
    served.define(settings=QUICK + '\non_type_change = "resync"')
    served.once()
    served.database.execute(
        "alter table a rename to c",
        "insert into c values (2, '8')",
        "alter table c alter v type int using v::int",
        "insert into c values (3, 9)",
        "alter table b rename to a",
        "insert into a values (3, 3)",
        "create table k (n int)",
        "alter table k replica identity full",
        "insert into k select i % 10 from generate_series(1, 100) i",
    )
    served.once(failpoint="at the seam:1", expect=-9)
    served.database.execute("alter table k rename to l", "insert into l values (1)")
    served.once()
    served.assert_equal("public.a", "public.c", "public.l")
    tables = served.query("select name from system.tables where database = 'shop' order by 1")
    assert [name for (name,) in tables] == ["a", "a_current", "c", "c_current", "l", "l_current"]


@pytest.mark.pg("== 15")
@pytest.mark.slow
def test_tables_that_are_named_are_gone(served: Case) -> None:
    """A pipe that has run goes on with the others, and with none."""
    served.database.execute(*TABLE, "create table u (id int primary key)")
    options = '[tables.options."public.t"]\nexclude_columns = ["v"]'
    served.define(settings=QUICK, tables='include = ["public.t", "public.u"]', options=options)
    served.once()
    served.database.execute("drop table t", "insert into u values (1)")
    done = served.once(expect=1)
    assert "tables.options names public.t" in done.stderr
    assert re.search(r"table set aside.* table=public.t", done.stderr)
    served.assert_equal("public.u")
    served.once()
    served.database.execute("drop table u")
    served.once(expect=1)
    served.database.execute(*TABLE, "create table u (id int primary key)", "insert into u values (7)")
    served.once()
    served.assert_equal("public.u")
    assert served.query("select count() from t_current") == [["100"]]


@pytest.mark.slow
@pytest.mark.pg("== 15")
@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_resync(case: Case, *, running: bool) -> None:
    """Readers find all rows at any moment; what was wrong is right afterwards."""
    case.database.execute(
        "create table t (id int primary key, v text)",
        "insert into t select i, repeat('x', 300) from generate_series(1, 20000) i",
    )
    case.define(settings=QUICK + "\ncopy_part_rows = 1000\ncopy_workers = 1")
    with case.running():
        streaming(case)
        case.database.execute("insert into t values (0, 'streamed')", "update t set v = 'streamed' where id = 1")
        case.wait_for("select count() from t_current", 20001)
        if running:
            done = case.penstock("resync", str(case.file), "public.t")
            assert "running pipe copies" in done.stdout, done.stderr
            seen = set()

            def swapped() -> bool:
                seen.add(case.query("select count() from t_current")[0][0])
                return case.log().count("table streaming") == 2

            case.wait_until(swapped, "it is copied again")
            assert seen == {"20001"}
            case.assert_equal("public.t")
            bad = case.penstock("resync", str(case.file), "public.x")
            assert bad.returncode == 2
            assert "no table public.x" in bad.stderr
    if not running:
        done = case.penstock("resync", str(case.file), "public.t")
        assert "next run copies" in done.stdout, done.stderr
        assert case.query("select count() from t_current") == [["20001"]]
    case.database.execute("insert into t values (-1, 'after')", "delete from t where id = 5")
    case.once()
    case.assert_equal("public.t")
    assert case.query("select count() from system.tables where database = 'shop'") == [["2"]]


@pytest.mark.slow
def test_changes_while_a_table_is_copied(served: Case) -> None:
    served.database.execute(
        "create table t (id int primary key, v text, n int)",
        "insert into t select i, repeat('x', 500), i from generate_series(1, 20000) i",
    )
    served.define(settings=QUICK + "\ncopy_part_rows = 500\ncopy_workers = 1\nmax_batch_rows = 500")
    with served.running():
        served.wait_for("select count() > 0 from t", 1)
        served.database.execute(
            "alter table t add column w int default 7",
            "insert into t values (20001, 'a', 1, 8)",
            "alter table t rename v to text",
            "update t set text = 'short' where id < 100",
            "alter table t alter n type bigint",
            "insert into t values (20002, 'b', 1e15, 8)",
            "alter table t drop column w",
            "insert into t values (20003, 'c', 1)",
        )
        streaming(served)
        served.wait_for("select count() from t_current", 20003)
        served.assert_equal("public.t")


@pytest.mark.slow
def test_changes_by_hand_at_the_destination(served: Case) -> None:
    case = served
    assert case.server
    case.database.execute(*TABLE, "create table u (id int primary key)")
    case.define(settings=QUICK)
    case.once()
    case.server.query("alter table shop.t add column mine Int32 default 3")
    with case.running():
        case.database.execute("insert into t values (101, 'x')")
        case.wait_for("select count() from t_current", 101)
        case.server.query("alter table shop.t drop column v")
        case.database.execute("insert into t values (102, 'y')", "insert into u values (1)")
        case.wait_for("select count() from u_current", 1)
        case.wait_until(lambda: "table set aside" in case.log(), "the table is set aside")
        assert re.search(r"table set aside.* table=public\.t ", case.log())
        case.penstock("resync", str(case.file), "public.t")
        case.wait_for("select count(v) from t_current", 102)
        case.assert_equal("public.t", "public.u")
        case.server.query("rename table shop.u to shop.elsewhere")
        case.database.execute("insert into u values (2)")
        case.wait_until(lambda: case.log().count("table set aside") == 2, "the other table is set aside")
        case.server.query("rename table shop.elsewhere to shop.u")
        case.wait_for("select count() from u_current", 2)
        case.database.execute("insert into u values (3)")
        case.wait_for("select count() from u_current", 3)
        case.assert_equal("public.t", "public.u")
        case.server.query("drop table shop.u sync")
        case.database.execute("insert into u values (4)")
        case.wait_until(lambda: case.log().count("table set aside") == 3, "the other table is set aside")
        case.penstock("resync", str(case.file), "public.u")
        case.wait_for("select count() from u_current", 4)


@pytest.mark.slow
def test_a_table_is_excluded_for_a_while(served: Case) -> None:
    """What was written meanwhile was not read: it is copied anew, beside the rows of then."""
    served.database.execute(*TABLE, "create table u (id int primary key)")
    served.define()
    served.once()
    served.define(tables='exclude = ["public.t"]')
    served.database.execute("insert into t values (101, 'x')", "insert into u values (1)")
    served.once()
    assert served.query("select count() from t_current") == [["100"]]
    assert served.database.fetch("select tablename from pg_publication_tables") == [("u",)]
    assert at_rest(served) == {"public.t": "left_out", "public.u": "streaming"}
    assert "left out: the pipe" in served.penstock("status", "shop").stdout
    served.database.execute("delete from t where id < 10", "alter table t add column w int default 4")
    served.define()
    served.once()
    served.assert_equal("public.t", "public.u")
    assert at_rest(served) == {"public.t": "streaming", "public.u": "streaming"}
    assert served.query("select count() from system.tables where database = 'shop'") == [["4"]]


def at_rest(case: Case) -> dict[str, str]:
    """The states that ``penstock status`` shows of a pipe that does not run."""
    known = json.loads(case.penstock("status", "shop", "--json").stdout)
    return {each["full_name"]: each["state"] for each in known["tables"]}


@pytest.mark.parametrize("again", [False, True])
def test_a_table_is_dropped_while_the_pipe_is_stopped(served: Case, *, again: bool) -> None:
    """Its last rows arrive all the same, and it is set aside as it would have been in a running pipe."""
    served.database.execute(*TABLE, "create table u (id int primary key)")
    served.define(settings=QUICK)
    served.once()
    served.database.execute(
        "insert into t values (101, 'last')", "delete from t where id = 1", "drop table t", "insert into u values (1)"
    )
    if again:
        served.database.execute("create table t (id text primary key, w int)", "insert into t values ('a', 1)")
        with served.running():
            served.wait_for("select count(w) from t_current", 1, 20)
            served.assert_equal("public.t", "public.u")
        found = re.search(r"dropped table put aside.*now=(\w+)", served.log())
        assert found
        old = found[1]
    else:
        assert "public.t" in served.once(expect=1).stderr
        old = "t"
    ids = f"select count(), max(id) from {old} final where not _is_deleted"
    assert served.query(ids) == [["100", "101"]]


def test_a_name_that_somebody_takes_while_the_table_is_copied(served: Case) -> None:
    """Their table is not exchanged for ours; once it is away, ours takes the name."""
    assert served.server
    served.database.execute("create table t (id int primary key)")
    served.define()
    served.once()
    served.database.execute("create table late (id int primary key)", "insert into late values (1)")
    served.once(failpoint="after a copy part", expect=-9)
    served.server.query("create table shop.late (mine String) engine = MergeTree order by mine")
    served.server.query("insert into shop.late values ('kept')")
    done = served.once(expect=1)
    assert "late exists and does not fit" in done.stderr.replace("\n", " ")
    assert served.query("select mine from late") == [["kept"]]
    served.server.query("drop table shop.late")
    with served.running():
        served.wait_for("select count() from late_current", 1)
