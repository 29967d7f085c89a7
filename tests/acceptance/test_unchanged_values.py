"""Out-of-line values that an UPDATE leaves out (invariant 5): kept, wherever they come from, and counted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fix_pipe import Case

KILLED = -9
COLUMNS = ("body", "raw", "doc", "tags")
TABLES = ("plain", "by_index", "whole")
VALUES = (
    "repeat('b{0}' || i, 1000), decode(repeat(md5('{0}' || i), 150), 'hex'),"
    " jsonb_build_object('k', repeat('j{0}' || i, 1000)), array[null, repeat('t{0}' || i, 1000)]"
)


def _make(case: Case) -> None:
    for name in TABLES:
        case.database.execute(
            f"create table {name} (id int primary key, code text not null unique, n int,"
            " body text, raw bytea, doc jsonb, tags text[])",
            *(f"alter table {name} alter {column} set storage external" for column in COLUMNS),
        )
    case.database.execute(
        "alter table by_index replica identity using index by_index_code_key", "alter table whole replica identity full"
    )
    _insert(case, 1, 60)


def _insert(case: Case, first: int, last: int, more: str = "") -> None:
    rows = f"select i, 'c' || i, 0, {VALUES.format('')} from generate_series({first}, {last}) i"
    _each(case, f"insert into {{0}} {rows}; {more}")


def _each(case: Case, *statements: str) -> None:
    """On every table; the statements of one text are one transaction."""
    case.database.execute(*(statement.format(name) for statement in statements for name in TABLES))


def _counted(case: Case) -> dict[str, Counter[str]]:
    """What a run counted of unchanged values, by table and where they came from."""
    before = case.counted()
    case.once()
    start = "unchanged values from the "
    return {
        name.partition(".")[2]: Counter(
            {
                key.removeprefix(start): count
                for key, count in (counters - before.get(name, Counter())).items()
                if key.startswith(start)
            }
        )
        for name, counters in case.counted().items()
    }


def test_unchanged_values_in_every_combination(served: Case) -> None:
    """Not yet copied, only copied, in an earlier batch or the same one, with key changes, several in a row, after a crash."""
    tables = [f"public.{name}" for name in TABLES]
    _make(served)
    served.define(settings="copy_part_rows = 20\nmax_batch_rows = 20")
    served.once(failpoint="within a copy part:1", expect=KILLED)
    _each(served, "update {0} set n = 1 where id <= 5", "update {0} set id = id + 500, code = 'd' || id where id = 6")
    counted = _counted(served)
    served.assert_equal(*tables)
    for name in ("plain", "by_index"):
        assert counted[name] == {"source": 6 * 4}  # what is copied is of a later time
    assert counted["whole"] == {"old tuple": 6 * 4}

    served.define()
    _each(
        served,
        "update {0} set n = 2 where id <= 20",  # as it was copied; five of them as they were read again
        "update {0} set n = 3, id = id + 1000 where id between 21 and 25",  # with a key change, of one index or the other
        "update {0} set n = 3, code = 'e' || id where id between 26 and 30",
        "update {0} set n = 4 where id > 1000 or code like 'e%'",  # again
        "delete from {0} where id = 31; update {0} set id = 31 where id = 32; update {0} set code = 'c31' where id = 31",
        "update {0} set n = 5, body = null, doc = null where id = 33",  # NULL for real
        "update {0} set n = 6 where id = 33",
        "update {0} set raw = 'short', doc = '{{}}' where id = 34; update {0} set n = 7 where id = 34",
        "delete from {0} where id = 35; insert into {0} select 35, 'c35', 0, doc::text, null, doc, tags from {0} where id = 36",
        "update {0} set n = 8 where id = 35",
    )
    _insert(served, 101, 105, "update {0} set n = 9 where id > 100; update {0} set n = n + 1 where id > 100")
    counted = _counted(served)
    served.assert_equal(*tables)
    unchanged = 19 * 4 + 5 * 4 * 2 + 5 * 4 * 2 + 2 * 4 + (2 + 2) + (2 + 2) + 3 + 11 * 4 * 2
    for name in TABLES:
        assert counted[name].total() == unchanged, name
    assert counted["whole"] == {"old tuple": unchanged}
    for name in ("plain", "by_index"):
        assert counted[name]["batch"] > 0
        assert counted[name]["destination"] >= 19 * 4
        assert counted[name]["source"] == 0

    served.define(settings="max_batch_rows = 20")
    _each(
        served,
        "update {0} set n = n + 1",
        "update {0} set id = -id, body = 'b' || id where id % 3 = 0; update {0} set n = n + 1 where id % 2 = 0",
        "update {0} set code = code || 'x', doc = null where id % 5 = 0; update {0} set n = n + 1",
    )
    served.once(failpoint="after insert:9", expect=KILLED)
    served.once(failpoint="before save:2", expect=KILLED)
    served.once()
    served.assert_equal(*tables)
