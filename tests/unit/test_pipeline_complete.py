"""Completing unchanged values: where each one comes from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

import pytest
from tests.plans import plan_of

from penstock.batch import Batch, EncodedColumn, Hole, Unfit, Value, version_of
from penstock.errors import SchemaConflictError, SourceUnavailableError, UnfitValueError
from penstock.lsn import Lsn
from penstock.pipeline.complete import NOWHERE_YET, Doubt, Identity, NotCopiedError, complete

if TYPE_CHECKING:
    from penstock.plan import Plan


@dataclass
class Row:
    version: int
    deleted: bool
    values: dict[int, Value]


@dataclass
class Ends:
    """Both ends as dictionaries. ``now`` is where the source's WAL ends."""

    stored: dict[Identity, Row] = field(default_factory=dict)
    source: dict[Identity, tuple[bytes | None, ...]] = field(default_factory=dict)
    asked: list[Identity] = field(default_factory=list)
    below: int | None = -1
    now: int = 0
    copied_until: int = 0
    kept: list[int] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    dropped: bool = False

    def __post_init__(self) -> None:
        self.doubt = Doubt(0, lambda: self.copied_until, self.kept.append)

    def newest(
        self, _plan: Plan, identities: list[Identity], _columns: list[int], below: int | None
    ) -> dict[Identity, Row]:
        self.below = below
        return {each: self.stored[each] for each in identities if each in self.stored}

    def rows(
        self, _plan: Plan, identities: list[Identity], _columns: list[int], _xids: list[int]
    ) -> tuple[dict[Identity, tuple[bytes | None, ...]], Lsn] | None:
        self.asked += identities
        if self.dropped:
            return None
        return {each: self.source[each] for each in identities if each in self.source}, Lsn(self.now)

    def complete(self, batch: Batch) -> Batch:
        complete(batch, self, self, self.doubt, self.counters)
        return batch


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


def at(position: int) -> int:
    return version_of(0, position, 1)


def hole(row: int, identity: Identity = ONE, old: Identity | None = None, position: int = 100, after: int = -1) -> Hole:
    return Hole(row, (1,), (row,), identity, old or identity, at(position), 7, after)


def stored(position: int, body: str, *, deleted: bool = False) -> Row:
    return Row(at(position) if position else 0, deleted, {1: text(body)})


def bodies(batch: Batch) -> list[str | None]:
    data, found = batch.columns[1].values, []
    for null in batch.columns[1].nulls or b"":
        length, data = data[0], data[1:]
        found.append(None if null else data[:length].decode())
        data = data[length:]
    return found


def deleted(batch: Batch) -> list[int]:
    return list(batch.columns[3].values)


@pytest.mark.parametrize("position", [50, 100, 150], ids=["older", "a replay", "superseded"])
def test_the_newest_stored_row_knows(position: int) -> None:
    ends = Ends({ONE: stored(position, "kept")})
    batch = ends.complete(batch_of(hole(0)))
    assert bodies(batch) == ["kept"]
    assert deleted(batch) == [0]
    assert ends.counters == {"unchanged values from the destination": 1}
    assert ends.below is None
    assert ends.asked == []


def test_a_newer_row_under_the_key_knows_nothing_of_what_became_of_the_older_one() -> None:
    """In a replay: 1 has gone to 3, and 2 to 1, which is stored by now; 3 to 4 is not."""
    three, four = (b"3",), (b"4",)
    swap = (
        hole(0, ONE, position=100),
        hole(1, three, old=ONE, position=110, after=0),
        hole(2, ONE, old=TWO, position=120),
        hole(3, four, old=three, position=130, after=1),
    )
    ends = Ends({ONE: stored(120, "of two"), three: stored(110, "of one")})
    assert bodies(ends.complete(batch_of(*swap))) == ["of two", "of one", "of two", "of one"]
    ends = Ends({ONE: stored(120, "of two")}, {four: (b"of one",)}, now=200)
    batch = ends.complete(batch_of(*swap))
    assert bodies(batch)[2:] == ["of two", "of one"]
    assert deleted(batch) == [0, 1, 0, 0]  # nobody can see 3 any more


def test_a_row_of_our_own_that_was_read_again_hands_nothing_on_until_then() -> None:
    ends = Ends(source={TWO: (b"of one",)}, now=200)
    ends.doubt = Doubt(150, lambda: 0, ends.kept.append)
    ends.stored = {ONE: stored(100, "of another")}
    found = bodies(ends.complete(batch_of(hole(0), hole(1, TWO, old=ONE, position=140, after=0))))
    assert found == ["of another", "of one"]
    ends.stored = {ONE: stored(100, "of one")}
    found = bodies(ends.complete(batch_of(hole(0), hole(1, TWO, old=ONE, position=160, after=0))))
    assert found == ["of one", "of one"]


def test_a_tombstone_knows_nothing_and_the_source_is_asked() -> None:
    ends = Ends({ONE: stored(50, "gone", deleted=True)}, {ONE: (b"from the source",)})
    assert bodies(ends.complete(batch_of(hole(0)))) == ["from the source"]
    assert ends.counters["unchanged values from the source"] == 1


def test_a_value_that_the_destination_cannot_give_back_as_it_is_comes_from_the_source() -> None:
    found = Row(at(50), deleted=False, values={})
    ends = Ends({ONE: found}, {ONE: (b"from the source",)})
    assert bodies(ends.complete(batch_of(hole(0)))) == ["from the source"]


def test_a_null_of_the_source_is_null() -> None:
    assert bodies(Ends(source={ONE: (None,)}).complete(batch_of(hole(0)))) == [None]


NUMBERS = {b"NaN": ("nan", True), b"1.23": ("too many digits", True), b"7.5": ("", False)}


@pytest.mark.parametrize("read", NUMBERS)
@pytest.mark.parametrize("nullable", [True, False])
def test_unfit_values_that_were_read_again_are_counted(read: bytes, nullable: bool) -> None:
    plan = plan_of("id int4, n numeric(3,1)", nullable=nullable)
    reason, unfit = NUMBERS[read]
    ends = Ends(source={ONE: (read,), TWO: (b"NaN",)})
    batch = numbers_of(plan, ends, ONE, ONE, TWO)
    nan = Unfit("n", "nan", 3, ONE) if reason == "nan" else Unfit("n", "nan", 1, TWO)
    assert batch.unfit == ((nan,) if reason in ("nan", "") else (Unfit("n", reason, 2, ONE), nan))
    assert ends.counters["unchanged values from the source"] == 3
    if nullable:
        assert batch.columns[1].nulls == bytes([unfit, unfit, True])


@pytest.mark.parametrize("read", NUMBERS)
def test_an_unfit_value_that_was_read_again_fails_where_it_is_to(read: bytes) -> None:
    plan = plan_of("id int4, n numeric(3,1)", on_unfit="fail")
    ends = Ends(source={ONE: (read,)})
    reason, unfit = NUMBERS[read]
    if not unfit:
        numbers_of(plan, ends, ONE)
        return
    with pytest.raises(UnfitValueError, match=f'column "n" of public.t.*{reason}') as caught:
        numbers_of(plan, ends, ONE)
    assert read.decode() not in caught.value.message + caught.value.hint
    assert "in the row with id = 1," in caught.value.message
    assert not ends.counters


@pytest.mark.parametrize(("read", "reason"), [(None, "null"), (b"{{1}}", "other dimensions"), (b"{1}", "")])
def test_arrays_that_were_read_again_are_counted_too(read: bytes | None, reason: str) -> None:
    ends = Ends(source={ONE: (read,)})
    batch = numbers_of(plan_of("id int4, n int4[]"), ends, ONE)
    assert batch.unfit == ((Unfit("n", reason, 1, ONE),) if reason else ())
    assert batch.holes == ()
    if reason:
        with pytest.raises(UnfitValueError, match=reason):
            numbers_of(plan_of("id int4, n int4[]", on_unfit="fail"), ends, ONE)


def test_an_attempt_that_fails_counts_nothing() -> None:
    ends = Ends({ONE: stored(50, "kept")})

    def cut(*_: object) -> NoReturn:
        raise SourceUnavailableError("cut")

    ends.rows = cut  # type: ignore[method-assign]
    with pytest.raises(SourceUnavailableError):
        ends.complete(batch_of(hole(0), hole(1, TWO)))
    assert not ends.counters


def numbers_of(plan: Plan, ends: Ends, *identities: Identity) -> Batch:
    """A batch with rows of these keys, the second column of each a hole, completed."""
    rows, width = len(identities), plan.columns[1].codec.width or 1
    nulls = bytes(rows) if plan.columns[1].wire.startswith("Nullable") else None
    columns = [EncodedColumn(None, bytes(4 * rows)), EncodedColumn(nulls, bytes(width * rows))]
    metadata = [EncodedColumn(None, bytes(16 * rows)), EncodedColumn(None, bytes(rows))]
    holes = [Hole(row, (1,), (row * width,), key, key, at(100), 7) for row, key in enumerate(identities)]
    return ends.complete(Batch(plan, rows, 0, 0, columns + metadata, holes=tuple(holes)))


def test_a_row_that_is_nowhere_becomes_a_tombstone() -> None:
    ends = Ends()
    assert deleted(ends.complete(batch_of(hole(1)))) == [0, 1]
    assert ends.counters["rows gone before they were complete"] == 1


def test_after_a_key_change_the_old_key_knows_and_not_what_the_batch_removes_from_the_new_one() -> None:
    ends = Ends({ONE: stored(50, "mine"), TWO: stored(60, "removed")})
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE)))) == ["mine"]


def test_a_replayed_key_change_finds_its_own_row() -> None:
    ends = Ends({ONE: stored(100, "", deleted=True), TWO: stored(100, "mine")})
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE)))) == ["mine"]
    reused = Ends({ONE: stored(200, "another"), TWO: stored(100, "mine")})
    assert bodies(reused.complete(batch_of(hole(0, TWO, old=ONE)))) == ["mine"]


def test_later_rows_of_a_chain_take_what_the_first_one_got() -> None:
    ends = Ends({ONE: stored(50, "mine"), TWO: stored(60, "removed")})
    holes = (hole(0, TWO, old=ONE), hole(1, TWO, position=101, after=0), hole(2, TWO, position=102, after=1))
    assert bodies(ends.complete(batch_of(*holes))) == ["mine"] * 3
    assert deleted(Ends().complete(batch_of(hole(0), hole(1, position=101, after=0)))) == [1, 1]


def test_rows_of_a_chain_that_the_destination_does_not_know_are_read_each_by_its_own_key() -> None:
    ends = Ends(source={ONE: (b"a stranger",), TWO: (b"mine",)})
    batch = ends.complete(batch_of(hole(0), hole(1, TWO, old=ONE, position=101, after=0)))
    assert bodies(batch) == ["a stranger", "mine"]


def test_copied_rows_are_of_the_future_until_the_copy_has_been_passed() -> None:
    """While the change is completed, another row may stand under its old key already."""
    ends = Ends({ONE: stored(0, "a stranger")}, {TWO: (b"mine",)}, copied_until=100)
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE)))) == ["mine"]
    ends = Ends({ONE: stored(0, "mine")}, copied_until=99)
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE)))) == ["mine"]


def test_values_that_were_read_again_are_of_the_future_until_that_is_passed() -> None:
    ends = Ends(source={ONE: (b"a stranger",)}, now=500)
    ends.complete(batch_of(hole(0, position=100)))
    assert ends.kept == [500]
    ends.stored, ends.source = {ONE: stored(100, "a stranger")}, {TWO: (b"mine",)}
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE, position=500)))) == ["mine"]
    ends.stored, ends.source = {ONE: stored(100, "mine")}, {}
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE, position=501)))) == ["mine"]


def test_rows_that_were_copied_before_the_last_copy_began_are_of_the_future_too() -> None:
    """A copy of a new partition begins while another one goes on: it stamps its rows with a later place than that did."""
    ends = Ends({ONE: stored(200, "a stranger")}, {TWO: (b"mine",)}, copied_until=NOWHERE_YET)
    ends.doubt = Doubt(0, lambda: ends.copied_until, ends.kept.append, base=lambda: at(250))
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE, position=300)))) == ["mine"]
    ends.copied_until = 400
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE, position=401)))) == ["a stranger"]


def test_the_next_process_trusts_nothing_until_what_the_last_one_kept_is_passed() -> None:
    ends = Ends({ONE: stored(100, "a stranger")}, {ONE: (b"mine",)})
    ends.doubt = Doubt(500, lambda: 0, ends.kept.append)
    assert bodies(ends.complete(batch_of(hole(0, position=400)))) == ["mine"]
    assert bodies(ends.complete(batch_of(hole(0, position=501)))) == ["a stranger"]


def test_a_history_asks_for_what_stood_before() -> None:
    plan = plan_of("id int4, body text", options={"shape": "history"})
    ends = Ends({ONE: stored(50, "then")})
    batch = ends.complete(batch_of(hole(0), hole(1, position=101, after=0), plan=plan))
    assert ends.below == at(100)
    assert bodies(batch) == ["then", "then"]


def test_where_copy_and_stream_meet_exactly_copied_rows_are_of_their_moment() -> None:
    ends = Ends({ONE: stored(0, "mine")}, copied_until=NOWHERE_YET)
    ends.doubt = Doubt(0, lambda: ends.copied_until, ends.kept.append, exact=lambda: True)
    assert bodies(ends.complete(batch_of(hole(0)))) == ["mine"]
    assert ends.asked == []


def test_where_they_meet_exactly_what_was_read_again_is_still_of_the_future() -> None:
    ends = Ends(source={ONE: (b"a stranger",)}, now=500)
    ends.doubt = Doubt(0, lambda: 0, ends.kept.append, exact=lambda: True)
    ends.complete(batch_of(hole(0, position=100)))
    ends.stored, ends.source = {ONE: stored(100, "a stranger")}, {TWO: (b"mine",)}
    assert bodies(ends.complete(batch_of(hole(0, TWO, old=ONE, position=500)))) == ["mine"]


def test_where_they_meet_exactly_a_change_waits_for_the_row_that_is_not_copied_yet() -> None:
    """Also for one of two; and what was found is not counted, as it comes again."""
    ends = Ends({ONE: stored(0, "mine")}, {TWO: (b"later",)}, copied_until=NOWHERE_YET)
    ends.doubt = Doubt(0, lambda: ends.copied_until, ends.kept.append, exact=lambda: True)
    batch = batch_of(hole(0), hole(1, TWO, position=101))
    with pytest.raises(NotCopiedError):
        ends.complete(batch)
    assert (ends.asked, ends.counters) == ([], {})
    ends.stored[TWO], ends.copied_until = stored(0, "mine too"), 500
    assert bodies(ends.complete(batch)) == ["mine", "mine too"]


def test_what_feeds_views_only_is_read_from_the_source() -> None:
    plan = plan_of("id int4, body text", options={"shape": "null"})
    ends = Ends({ONE: stored(50, "stored")}, {ONE: (b"read",)})
    assert bodies(ends.complete(batch_of(hole(0), plan=plan))) == ["read"]


def test_of_a_table_that_was_dropped_all_but_what_is_not_complete_is_written() -> None:
    ends = Ends(dropped=True)
    batch = batch_of(hole(1))
    batch.columns[0] = EncodedColumn(None, b"".join(each.to_bytes(4, "little") for each in (5, 1)))
    batch.columns[1] = EncodedColumn(bytes(2), b"\3abc\0")
    whole = ends.complete(replace(batch, holes=(replace(batch.holes[0], offsets=(4,)),)))
    assert (whole.rows, whole.columns[0].values, bodies(whole)) == (1, (5).to_bytes(4, "little"), ["abc"])
    assert [len(column.values) for column in whole.columns[2:]] == [16, 1]


def test_of_a_table_that_was_dropped_no_row_is_lost_with_its_old_key() -> None:
    with pytest.raises(SchemaConflictError, match="dropped"):
        Ends(dropped=True).complete(batch_of(hole(0, old=TWO)))
