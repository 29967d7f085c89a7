"""Values that an UPDATE leaves out: taken from earlier rows of the batch, or left as holes. Both decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import fix_frames as frame
from tests.feed import OID, Feed
from tests.fix_frames import LEFT_OUT
from tests.native_block import brief, rows_of, states
from tests.plans import plan_of

from penstock.batch import Hole, version_of

if TYPE_CHECKING:
    from types import ModuleType

    from penstock.batch import Batch

NOTE = "id int4, note text, n int4"


# Unchanged values


def test_a_hole_says_where_and_which_row(decoder: ModuleType) -> None:
    plan = plan_of("id int4, note text, price numeric, n int4", ("id", "n"))
    feed = Feed(decoder, plan, starts=(0,))
    feed.transaction(
        frame.insert(OID, ["7", "abc", "1", "1"]),
        frame.update(OID, ["1", LEFT_OUT, LEFT_OUT, "5"]),
        frame.update(OID, ["2", LEFT_OUT, "1", "5"], key=["2", None, None, "4"]),
        xid=4_000_000_000,
    )
    batch = feed.take()
    assert batch.holes == (
        Hole(1, (1, 2), (4, 32), (b"1", b"5"), (b"1", b"5"), version_of(1, 0x100, 2), 4_000_000_000),
        Hole(3, (1,), (6,), (b"2", b"5"), (b"2", b"4"), version_of(1, 0x100, 3), 4_000_000_000),
    )
    assert batch.columns[1].values == b"\3abc\0\0\0"
    assert batch.columns[1].nulls == b"\0\0\1\0"
    assert (batch.folded, batch.from_old) == (0, 0)


def folding(decoder: ModuleType, *changes: bytes, columns: str = NOTE) -> Batch:
    feed = Feed(decoder, plan_of(columns))
    assert feed.transaction(*changes) == []
    return feed.take()


def test_an_earlier_row_of_the_key_fills(decoder: ModuleType) -> None:
    batch = folding(
        decoder,
        frame.insert(OID, ["1", "one", None]),
        frame.insert(OID, ["2", "two", None]),
        frame.update(OID, ["1", LEFT_OUT, "5"]),
        frame.update(OID, ["1", LEFT_OUT, "6"]),
        frame.update(OID, ["2", "three", None]),
        frame.update(OID, ["2", LEFT_OUT, "7"]),
    )
    assert [row["note"] for row in rows_of(batch)] == [b"one", b"two", b"one", b"one", b"three", b"three"]
    assert (batch.folded, batch.holes) == (3, ())


def test_null_fills_too(decoder: ModuleType) -> None:
    batch = folding(decoder, frame.insert(OID, ["1", None, None]), frame.update(OID, ["1", LEFT_OUT, "5"]))
    assert [row["note"] for row in rows_of(batch)] == [None, None]
    assert batch.columns[1].nulls == b"\1\1"
    assert batch.folded == 1


def test_keys_are_compared_as_encoded(decoder: ModuleType) -> None:
    columns = "id numeric(10,4), note text, n int4"
    batch = folding(
        decoder, frame.insert(OID, ["1.0", "x", None]), frame.update(OID, ["1.00", LEFT_OUT, None]), columns=columns
    )
    assert (batch.folded, batch.holes) == (1, ())


def test_each_column_is_filled_by_itself(decoder: ModuleType) -> None:
    batch = folding(
        decoder,
        frame.update(OID, ["1", "long", LEFT_OUT]),
        frame.update(OID, ["1", LEFT_OUT, LEFT_OUT]),
        frame.update(OID, ["1", LEFT_OUT, "wide"]),
        frame.update(OID, ["1", LEFT_OUT, LEFT_OUT]),
        columns="id int4, note text, more text",
    )
    assert [(hole.row, hole.columns, hole.after) for hole in batch.holes] == [(0, (2,), -1), (1, (2,), 0)]
    assert batch.folded == 4
    assert brief(rows_of(batch)[2:], "note", "more") == [(b"long", b"wide")] * 2


def test_offsets_are_those_after_folding(decoder: ModuleType) -> None:
    batch = folding(
        decoder,
        frame.insert(OID, ["1", "x" * 200, None]),
        frame.update(OID, ["1", LEFT_OUT, None]),
        frame.update(OID, ["2", LEFT_OUT, None]),
        frame.update(OID, ["3", "yz", None]),
    )
    [hole] = batch.holes
    assert (hole.row, hole.offsets) == (2, (404,))
    assert batch.columns[1].values[404:] == b"\0\2yz"


def test_unresolved_holes_of_a_key_are_chained(decoder: ModuleType) -> None:
    batch = folding(
        decoder,
        frame.update(OID, ["1", LEFT_OUT, "1"]),
        frame.update(OID, ["2", LEFT_OUT, "1"]),
        frame.update(OID, ["1", LEFT_OUT, "2"]),
        frame.update(OID, ["3", LEFT_OUT, "3"], key=["1", None, None]),
        frame.update(OID, ["3", LEFT_OUT, "4"]),
    )
    assert [(hole.row, hole.after) for hole in batch.holes] == [(0, -1), (1, -1), (2, 0), (4, 2), (5, 4)]
    moved = batch.holes[3]
    assert (moved.identity, moved.old_identity) == ((b"3",), (b"1",))
    later = batch.holes[4]
    assert (later.identity, later.old_identity) == ((b"3",), (b"3",))
    assert batch.folded == 0


def test_a_key_change_is_followed(decoder: ModuleType) -> None:
    batch = folding(
        decoder,
        frame.insert(OID, ["1", "long", None]),
        frame.update(OID, ["2", LEFT_OUT, "1"], key=["1", None, None]),
        frame.update(OID, ["3", LEFT_OUT, "1"], key=["2", None, None]),
        frame.update(OID, ["3", LEFT_OUT, "2"]),
    )
    assert states(rows_of(batch)) == [
        (1, b"long", 0),
        (1, None, 1),
        (2, b"long", 0),
        (2, None, 1),
        (3, b"long", 0),
        (3, b"long", 0),
    ]
    assert (batch.folded, batch.holes) == (3, ())


def test_a_key_change_does_not_take_what_another_row_left_under_the_new_key(decoder: ModuleType) -> None:
    batch = folding(
        decoder,
        frame.insert(OID, ["2", "other", None]),
        frame.delete(OID, key=["2", None, None]),
        frame.update(OID, ["2", LEFT_OUT, None], key=["1", None, None]),
    )
    assert [(hole.row, hole.identity, hole.old_identity, hole.after) for hole in batch.holes] == [
        (3, (b"2",), (b"1",), -1)
    ]


def test_nothing_is_taken_from_before_a_delete(decoder: ModuleType) -> None:
    batch = folding(
        decoder,
        frame.insert(OID, ["1", "old", None]),
        frame.delete(OID, key=["1", None, None]),
        frame.update(OID, ["1", LEFT_OUT, None]),
    )
    assert [(hole.row, hole.after) for hole in batch.holes] == [(2, -1)]
    assert batch.folded == 0


def test_nothing_is_taken_under_a_key_that_moved_away(decoder: ModuleType) -> None:
    batch = folding(
        decoder,
        frame.insert(OID, ["1", "old", None]),
        frame.update(OID, ["2", LEFT_OUT, None], key=["1", None, None]),
        frame.update(OID, ["1", LEFT_OUT, None]),
    )
    assert [hole.row for hole in batch.holes] == [3]
    assert batch.folded == 1


def test_batches_do_not_fold_into_each_other(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE))
    feed.transaction(frame.insert(OID, ["1", "x", None]))
    feed.take()
    feed.transaction(frame.update(OID, ["1", LEFT_OUT, None]))
    assert len(feed.take().holes) == 1


def test_an_insert_may_leave_out_values(decoder: ModuleType) -> None:
    """A row filter of the publication turns an UPDATE into an INSERT, and leaves out what was not changed."""
    batch = folding(decoder, frame.insert(OID, ["1", LEFT_OUT, None]))
    assert [(hole.identity, hole.old_identity) for hole in batch.holes] == [((b"1",), ())]
    assert [(hole.row, hole.identity) for hole in batch.holes] == [(0, (b"1",))]
