"""Large values and wide rows: nothing is cut, and memory stays bounded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fix_pipe import Case

MEGABYTES = 20
TEXT = f"repeat('0123456789abcde{{0}}', {MEGABYTES << 16})"
BYTES = f"decode(repeat('00ff10ab0d0a5c{{0:02x}}', {MEGABYTES << 17}), 'hex')"
BOUND = 300 << 20


def sums(table: str) -> str:
    return f"select id, n, length(txt), lower(hex(MD5(txt))), lower(hex(MD5(raw))), lower(hex(MD5(doc))) from {table} order by id"


def assert_same(case: Case, table: str) -> None:
    """Numbers, sizes and sums are those of the source; first what costs little to ask."""
    theirs = case.database.fetch(
        f"select id, n, octet_length(txt), md5(txt), md5(raw), md5(doc::text) from {table} order by id"
    )
    wanted = [[None if each is None else str(each) for each in row] for row in theirs]
    asked = f"select id, n, length(txt) from {table}_current order by id"
    case.wait_until(
        lambda: case.query(asked) == [row[:3] for row in wanted], f"{table} is there", seen=lambda: case.query(asked)
    )
    case.wait_until(  # what was there may have been so on the way only
        lambda: case.query(sums(f"{table}_current")) == wanted, f"{table} is the same", seen=lambda: case.query(asked)
    )


def values(number: int) -> str:
    return f"{TEXT.format(number)}, {BYTES.format(number)}, jsonb_build_object('k', {TEXT.format(number)})"


@pytest.mark.slow
@pytest.mark.pg("== 18")
def test_large_values_arrive_whole(case: Case) -> None:
    case.database.execute(
        "create table t (id int primary key, n int, txt text, raw bytea, doc jsonb)",
        "create table whole (id int, n int, txt text, raw bytea, doc jsonb)",
        "alter table whole replica identity full",
        "create table keyed (k text primary key, n int)",
        f"insert into t values (1, 0, {values(1)}), (2, 0, 'small', 'small', '1')",
        "insert into keyed values (repeat('key', 40000), 0)",
    )
    case.define()
    with case.running():
        assert_same(case, "t")
        case.database.execute(
            f"insert into t values (3, 0, {values(3)})",
            f"update t set txt = {TEXT.format(2)} where id = 2",
            "update t set n = 1",  # the destination knows what is left out
            "update t set id = 4 where id = 1",
            f"insert into whole values (1, 0, {values(4)})",
            "update whole set n = 1",
            f"insert into whole values (2, 0, {values(5)})",
            "delete from whole where id = 2",
            "update keyed set n = 1",
            "update keyed set k = k || 'more'",
        )
        assert_same(case, "t")
        assert_same(case, "whole")
        case.wait_for("select (length(k), n) from keyed_current", "(120004,1)")


def peak(pid: int) -> int:
    """The most memory that the process has had since the last time it was asked, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(found[1]) << 10


@pytest.mark.slow
@pytest.mark.pg("== 18")
def test_memory_is_bounded(served: Case) -> None:
    """Ten large rows in one transaction, updates that leave them out, and reading them again from the source."""
    columns = "(id int primary key, n int, txt text, raw bytea, doc jsonb)"
    served.database.execute(
        f"create table t {columns}", f"create table fed {columns}", "alter table t alter txt set storage external"
    )
    served.define(options='[tables.options."public.fed"]\nshape = "null"')
    served.once()
    assert served.server
    served.server.query("create table shop.seen engine = MergeTree order by id as select * from shop.fed")
    served.server.query("create materialized view shop.feeds to shop.seen as select * from shop.fed where n = 1")
    with served.running() as process:
        served.database.execute("insert into t (id, n) values (0, 0)")
        served.wait_for("select count() from t_current", 1)
        idle = peak(process.pid)
        served.database.execute(f"insert into t select i, 0, {TEXT.format(1)} from generate_series(1, 10) i")
        served.wait_for("select count() from t_current where n = 0", 11)
        assert peak(process.pid) - idle < BOUND
        served.database.execute("update t set n = 1")
        served.wait_for("select count() from t_current where n = 1", 11)
        assert peak(process.pid) - idle < BOUND
        assert_same(served, "t")
        served.database.execute("insert into fed select id, 0, txt from t", "update fed set n = 1")
        wanted = served.query(sums("t_current"))
        served.wait_for("select count() from seen", 11)
        served.wait_until(
            lambda: served.query(sums("seen")) == wanted,
            "the fed rows are the same",
            seen=lambda: served.query(sums("seen")),
        )
        assert peak(process.pid) - idle < BOUND


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.pg("== 15")
def test_ten_million_rows_in_one_transaction(served: Case) -> None:
    """All of them once, also where the pipe is killed within it; memory does not grow with it."""
    served.database.execute(
        "create table t (id int primary key, n int, v text)",
        "insert into t select i, 0, 'copied' from generate_series(1, 1000) i",
    )
    served.define()
    served.once()
    served.database.execute(
        "begin; insert into t select i, i % 7, 'v' || i from generate_series(1001, 10000000) i;"
        " update t set n = -1, v = null where id <= 1000; delete from t where id % 1000000 = 0; commit"
    )
    served.once(failpoint="after insert:9", expect=-9)
    with served.running() as process:
        idle = peak(process.pid)
        served.wait_for(
            "select count() from t where id = 9999999", 1, 500
        )  # the last one; what is left of the time is asked once
        assert peak(process.pid) - idle < BOUND
    ours = served.query(
        "select count(), sum(id), sum(n), uniqExact(v), countIf(v = 'v' || toString(id)) from t_current"
    )
    theirs = served.database.fetch(
        "select count(*), sum(id), sum(n), count(distinct v), count(*) filter (where v = 'v' || id) from t"
    )
    assert [tuple(map(int, row)) for row in ours] == theirs


@pytest.mark.slow
@pytest.mark.pg("== 12")
def test_rows_of_1600_columns(embedded: Case) -> None:
    columns = ", ".join(f"c{number} {'int' if number % 8 else 'text'}" for number in range(1599))
    filled = ", ".join(f"i + {number}" if number % 8 else f"'{number}'" for number in range(1599))
    embedded.database.execute(
        f"create table wide (id int primary key, {columns})",
        f"insert into wide select i, {filled} from generate_series(1, 20) i",
    )
    embedded.define()
    with embedded.running():
        embedded.database.execute(
            f"insert into wide select i, {filled} from generate_series(21, 40) i",
            "update wide set c7 = -7, c1598 = -1598, c8 = 'a longer text', c16 = null where id % 2 = 0",
            "update wide set c24 = (select string_agg(md5(i::text), '') from generate_series(1, 300) i) where id % 3 = 0",
            "update wide set c1 = 1 where id % 3 = 0",  # leaves out c24, in a row that has everything else
            "update wide set id = id + 100 where id = 3",
            "delete from wide where id = 5",
        )
        embedded.wait_until(
            lambda: not embedded.differences("public.wide"),
            "wide is equal",
            seen=lambda: embedded.differences("public.wide"),
        )
