"""Completing unchanged values: where each one comes from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from tests.plans import plan_of

from penstock.batch import Batch, EncodedColumn, Hole, Value
from penstock.pipeline.complete import Identity, complete
from penstock.plan import Plan


@dataclass
class Row:
    version: int
    deleted: bool
    values: dict[int, Value]


@dataclass
class Ends:
    """Both ends as dictionaries."""

    stored: dict[Identity, Row] = field(default_factory=dict)
    source: dict[Identity, tuple[bytes | None, ...]] = field(default_factory=dict)
    asked: list[Identity] = field(default_factory=list)
    below: int | None = -1

    def newest(
        self, _plan: Plan, identities: list[Identity], _columns: list[int], below: int | None
    ) -> dict[Identity, Row]:
        self.below = below
        return {each: self.stored[each] for each in identities if each in self.stored}

    def rows(
        self, _plan: Plan, identities: list[Identity], _columns: list[int], _xids: list[int]
    ) -> dict[Identity, tuple[bytes | None, ...]]:
        self.asked += identities
        return {each: self.source[each] for each in identities if each in self.source}


PLAN = plan_of("id int4, body text")
ONE, TWO = (b"1",), (b"2",)


def text(value: str) -> Value:
    return Value(null=False, data=bytes([len(value)]) + value.encode())


def batch_of(*holes: Hole, plan: Plan = PLAN) -> Batch:
    """As many rows as the last hole's, every body a hole."""
    rows = holes[-1].row + 1
    metadata = [EncodedColumn(None, bytes(16 * rows)), EncodedColumn(None, bytes(rows))]
    columns = [EncodedColumn(None, bytes(4 * rows)), EncodedColumn(bytes(rows), bytes(rows)), *metadata]
    return Batch(plan, rows, 0, 0, columns, holes=holes)


def hole(row: int, identity: Identity = ONE, old: Identity | None = None, version: int = 100, after: int = -1) -> Hole:
    return Hole(row, (1,), (row,), identity, old or identity, version, 7, after)


def bodies(batch: Batch) -> list[str | None]:
    data, found = batch.columns[1].values, []
    for null in batch.columns[1].nulls or b"":
        length, data = data[0], data[1:]
        found.append(None if null else data[:length].decode())
        data = data[length:]
    return found


def deleted(batch: Batch) -> list[int]:
    return list(batch.columns[3].values)


@pytest.mark.parametrize("version", [50, 100, 150], ids=["older", "a replay", "superseded"])
def test_the_newest_stored_row_knows(version: int) -> None:
    ends, counters = Ends({ONE: Row(version, deleted=False, values={1: text("kept")})}), Counter[str]()
    batch = batch_of(hole(0))
    complete(batch, ends, ends, counters)
    assert bodies(batch) == ["kept"]
    assert deleted(batch) == [0]
    assert counters == {"unchanged values from the destination": 1}
    assert ends.below is None
    assert ends.asked == []


def test_a_tombstone_knows_nothing_and_the_source_is_asked() -> None:
    ends = Ends({ONE: Row(50, deleted=True, values={1: text("gone")})}, {ONE: (b"from the source",)})
    batch = batch_of(hole(0))
    complete(batch, ends, ends, Counter())
    assert bodies(batch) == ["from the source"]


def test_a_null_of_the_source_is_null() -> None:
    ends = Ends(source={ONE: (None,)})
    batch = batch_of(hole(0))
    complete(batch, ends, ends, Counter())
    assert bodies(batch) == [None]


def test_a_row_that_is_nowhere_becomes_a_tombstone() -> None:
    ends, counters = Ends(), Counter[str]()
    batch = batch_of(hole(1))
    complete(batch, ends, ends, counters)
    assert deleted(batch) == [0, 1]
    assert counters == {"rows deleted before they were complete": 1}


def test_after_a_key_change_the_old_key_knows_and_not_what_the_batch_removes_from_the_new_one() -> None:
    ends = Ends(
        {
            ONE: Row(50, deleted=False, values={1: text("mine")}),
            TWO: Row(60, deleted=False, values={1: text("removed")}),
        }
    )
    batch = batch_of(hole(0, TWO, old=ONE))
    complete(batch, ends, ends, Counter())
    assert bodies(batch) == ["mine"]


def test_a_replayed_key_change_finds_its_own_row() -> None:
    ends = Ends(
        {ONE: Row(100, deleted=True, values={1: text("")}), TWO: Row(100, deleted=False, values={1: text("mine")})}
    )
    batch = batch_of(hole(0, TWO, old=ONE))
    complete(batch, ends, ends, Counter())
    assert bodies(batch) == ["mine"]
    reused = Ends(
        {
            ONE: Row(200, deleted=False, values={1: text("another")}),
            TWO: Row(100, deleted=False, values={1: text("mine")}),
        }
    )
    complete(batch := batch_of(hole(0, TWO, old=ONE)), reused, reused, Counter())
    assert bodies(batch) == ["mine"]


def test_later_rows_of_a_chain_take_what_the_first_one_got() -> None:
    ends = Ends(
        {
            ONE: Row(50, deleted=False, values={1: text("mine")}),
            TWO: Row(60, deleted=False, values={1: text("removed")}),
        }
    )
    batch = batch_of(hole(0, TWO, old=ONE), hole(1, TWO, version=101, after=0), hole(2, TWO, version=102, after=1))
    complete(batch, ends, ends, Counter())
    assert bodies(batch) == ["mine"] * 3
    lost = batch_of(hole(0), hole(1, version=101, after=0))
    complete(lost, Ends(), Ends(), Counter())
    assert deleted(lost) == [1, 1]


def test_a_history_asks_for_what_stood_before() -> None:
    plan = plan_of("id int4, body text", options={"shape": "history"})
    ends = Ends({ONE: Row(50, deleted=False, values={1: text("then")})})
    batch = batch_of(hole(0, version=100), hole(1, version=101, after=0), plan=plan)
    complete(batch, ends, ends, Counter())
    assert ends.below == 100
    assert bodies(batch) == ["then", "then"]


def test_what_feeds_views_only_is_read_from_the_source() -> None:
    plan = plan_of("id int4, body text", options={"shape": "null"})
    ends = Ends({ONE: Row(50, deleted=False, values={1: text("stored")})}, {ONE: (b"read",)})
    batch = batch_of(hole(0), plan=plan)
    complete(batch, ends, ends, Counter())
    assert bodies(batch) == ["read"]
