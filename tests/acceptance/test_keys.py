"""Changes of keys: each row is found under its new key and nowhere else, whatever its key is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fix_pipe import Case

KILLED = -9
TABLES = ("whole", "pair", "late", "late_full", "by_index", "far", "far_pair", "sorted", "odd")

SOURCE = (
    "create table whole (id int primary key, n int, t text)",
    "create table pair (a int, b text, t text, primary key (b, a))",
    # deferrable: never a key; rows may share one within a transaction
    "create table late (id int primary key deferrable initially deferred, code int not null, t text)",
    "create unique index late_code on late (code)",
    "alter table late replica identity using index late_code",
    "create table late_full (id int primary key deferrable initially deferred, code int, t text)",
    "alter table late_full replica identity full",
    "create table by_index (id int primary key, a text not null, b int not null, t text)",
    "create unique index by_index_key on by_index (b, a)",
    "alter table by_index replica identity using index by_index_key",
    # keys that are stored out of line
    "create table far (k text primary key, n int, t text) with (toast_tuple_target = 128)",
    "create table far_pair (n int, k text, m int not null, primary key (k, n)) with (toast_tuple_target = 128)",
    "alter table far alter k set storage external",
    "alter table far_pair alter k set storage external",
    # the old tuple tells where the row was
    "create table sorted (id int primary key, region text, at date, t text)",
    "alter table sorted replica identity full",
    "create table odd (f float8, n numeric, c char(3), u uuid, b bytea, at timestamptz, primary key (f, n, c, u, b, at))",
    *(f"alter table {name} alter t set storage external" for name in TABLES if name not in ("far_pair", "odd")),
    "insert into whole select i, 0, repeat('w' || i, 800) from generate_series(1, 60) i",
    "insert into pair select i % 8, 'b' || i, repeat('p' || i, 800) from generate_series(1, 60) i",
    "insert into late select i, i, repeat('l' || i, 800) from generate_series(1, 60) i",
    "insert into late_full select i, i % 3, repeat('f' || i % 3, 800) from generate_series(1, 60) i",
    "insert into by_index select i, 'a' || i, i % 8, repeat('i' || i, 800) from generate_series(1, 60) i",
    "insert into far select repeat('k' || i, 700), 0, repeat('t' || i, 800) from generate_series(1, 40) i",
    "insert into far_pair select i, repeat('k' || i % 5, 700), i from generate_series(1, 40) i",
    "insert into sorted select i, 'r' || i % 4, '2024-01-01'::date + i, repeat('s' || i, 800) from generate_series(1, 60) i",
    (
        "insert into odd select i, i, 'c' || i, md5(i::text)::uuid, decode(md5(i::text), 'hex'), now() + i * interval '1h'"
        " from generate_series(1, 40) i"
    ),
)
CHANGES = (
    "update whole set id = id - 1",  # each onto the key of the one before
    "update whole set n = n + 1; update whole set n = n + 1 where id % 2 = 0",
    "update whole set id = -1 where id = 10; update whole set id = 10 where id = 20; update whole set id = 20 where id = -1",
    "delete from whole where id = 30; update whole set id = 30 where id = 31; insert into whole values (31, 9, 'new')",
    "update whole set id = 5000 where id = 40; update whole set id = 40 where id = 5000",
    "update pair set a = a + 1 where b < 'b3'",  # part of the key
    "update pair set b = 'c' || b where a = 4; update pair set b = substr(b, 2), a = a + 8 where b like 'c%' and a = 4 and b > 'cb3'",
    "update late set id = id + 1",
    "update late set code = code + 1000 where id > 30; update late set id = code where code < 10",
    "update late set id = 7 where id < 5; update late set id = code + 100 where id = 7",
    "update late_full set id = id + 1; update late_full set code = code where id < 9; delete from late_full where id > 55",
    "update late_full set id = -r.n from (select ctid as place, row_number() over () as n from late_full) r where place = late_full.ctid",
    "update by_index set id = id + 100; update by_index set b = b + 1 where id < 130",
    "update by_index set a = 'z' || a where b > 5",
    "delete from by_index where id > 150",
    "update far set n = 1 where k < repeat('k2', 700)",  # 'K' although the key is the same
    "update far set k = 'x' || k where k > repeat('k3', 700); update far set n = 2",
    "delete from far where k like 'k1%'",
    "update far set k = substr(k, 2) where k like 'xk4%'",
    "update far_pair set m = m + 1; update far_pair set n = n + 40 where m > 20",  # the part that is out of line stays
    "update far_pair set k = 'y' || k where n < 10; update far_pair set n = -n, k = 'z' || k where n > 70",
    "delete from far_pair where n = 50",
    "update sorted set region = 'r9' where id < 20; update sorted set region = null, at = at + 1 where id between 10 and 30",
    "update sorted set id = -id where id between 25 and 35; update sorted set at = null where id < 0",
    "delete from sorted where id > 50",
    "update odd set f = '-0' where f = 1; update odd set f = 0 where f = 0; update odd set f = 'NaN' where f = 2",
    "update odd set n = n * 1.00; update odd set n = n + 0.10 where f > 30; update odd set c = 'x' where f < 10",
    "update odd set u = md5(u::text)::uuid, b = '' where f > 20; update odd set at = at + interval '1 us' where f < 15",
    "delete from odd where f = 'NaN'",
)


def test_keys_that_change(served: Case) -> None:
    """In batches of a few rows, killed in between, so that most old rows are in the destination, and some batches come again."""
    served.database.execute(*SOURCE)
    served.define(
        settings="max_batch_rows = 50",
        options='[tables.options."public.sorted"]\norder_by = ["region", "at"]',
    )
    served.once()
    served.database.execute(*CHANGES)
    for failpoint in ("after insert:12", "before confirm:1"):
        served.once(failpoint=failpoint, expect=KILLED)
    served.once()
    served.assert_equal(*(f"public.{name}" for name in TABLES))


def test_keys_that_are_swapped_come_again(served: Case) -> None:
    """All of it is stored when it comes again: what stands under a key by then is another row than the first change of it was of."""
    served.database.execute(
        "create table t (id int primary key, n int, big text)",
        "alter table t alter big set storage external",
        "insert into t select i, 0, repeat('w' || i, 1500) from generate_series(1, 9) i",
    )
    served.define()
    served.once()
    served.database.execute(
        "update t set n = n + 1",
        "update t set id = -1 where id = 1; update t set id = 1 where id = 2; update t set id = 2 where id = -1",
        "update t set id = id + 100 where id > 3",
        "update t set id = id - 97 where id > 103; update t set n = 2 where id = 9",
    )
    for failpoint in ("before save:1", "before save:1"):
        served.once(failpoint=failpoint, expect=KILLED)
        served.assert_equal("public.t")
    served.once()
    served.assert_equal("public.t")
