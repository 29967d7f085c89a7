"""What a change means for a plan's rows: old tuples, key changes, unchanged values, unfit values, shapes."""

from __future__ import annotations

import dataclasses
import struct
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from tests import fix_frames as frame
from tests.feed import OID, Feed
from tests.fix_frames import LEFT_OUT
from tests.native_block import brief, rows_of, states
from tests.plans import SERVER, TABLE_OID, pipe_of, plan_of, table_of

from penstock.batch import Unfit, version_of
from penstock.errors import FrameError
from penstock.plan import compile_plan

if TYPE_CHECKING:
    from types import ModuleType

    from penstock.batch import Batch

NOTE = "id int4, note text, n int4"


# Keys


def test_an_update_without_an_old_tuple_keeps_its_key(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE))
    assert states(feed.change(frame.update(OID, ["1", "a", None]))) == [(1, b"a", 0)]


def test_a_key_change_is_a_tombstone_and_a_row(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE))
    rows = feed.change(frame.update(OID, ["2", "a", "5"], key=["1", None, None]))
    assert brief(rows, "id", "note", "n", "_is_deleted") == [(1, None, None, 1), (2, b"a", 5, 0)]
    assert [row["_version"] for row in rows] == [version_of(0, 0x100, 1)] * 2


def test_an_old_key_does_not_mean_that_the_key_changed(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of("id numeric(10,4), note text, n int4"))
    assert states(feed.change(frame.update(OID, ["1.00", "a", None], key=["1.0", None, None]))) == [(1, b"a", 0)]
    rows = feed.change(frame.update(OID, ["1.01", "a", None], key=["1.0", None, None]))
    assert states(rows) == [(1, None, 1), (Decimal("1.01"), b"a", 0)]


def test_a_toasted_key_is_filled_from_the_old_tuple(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of("id text, note text, n int4", ("id", "n")))
    feed.transaction(frame.update(OID, [LEFT_OUT, "a", "2"], key=["long", None, "2"]))
    batch = feed.take()
    assert states(rows_of(batch)) == [(b"long", b"a", 0)]
    assert (batch.from_old, batch.holes) == (0, ())
    rows = feed.change(frame.update(OID, [LEFT_OUT, "a", "3"], key=["long", None, "2"]))
    assert brief(rows, "id", "n", "_is_deleted") == [(b"long", 2, 1), (b"long", 3, 0)]


def test_a_full_old_tuple_fills_what_was_left_out(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE, full=True), full=True)
    feed.transaction(frame.update(OID, ["1", LEFT_OUT, "2"], full=["1", "long", "1"]))
    batch = feed.take()
    assert brief(rows_of(batch), "id", "note", "n", "_is_deleted") == [(1, b"long", 2, 0)]
    assert (batch.from_old, batch.folded, batch.holes, batch.text_bytes) == (1, 0, (), 6)


def test_a_full_old_tuple_makes_a_whole_tombstone(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE, full=True), full=True)
    rows = feed.change(
        frame.update(OID, ["2", LEFT_OUT, None], full=["1", "long", "1"]), frame.delete(OID, full=["2", "x", "9"])
    )
    assert brief(rows, "id", "note", "n", "_is_deleted") == [(1, b"long", 1, 1), (2, b"long", None, 0), (2, b"x", 9, 1)]


def test_the_marker_of_a_full_old_tuple_may_lie(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE))
    feed.transaction(
        frame.update(OID, ["2", LEFT_OUT, "3"], full=["1", None, None]), frame.delete(OID, full=["7", None, None])
    )
    batch = feed.take()
    assert brief(rows_of(batch), "id", "n", "_is_deleted") == [(1, None, 1), (2, 3, 0), (7, None, 1)]
    assert batch.from_old == 0
    assert [hole.columns for hole in batch.holes] == [(1,)]


def test_a_sorting_key_beyond_the_identity_is_compared_where_it_is_known(decoder: ModuleType) -> None:
    plan = plan_of(NOTE, full=True, options={"order_by": ["n"]})
    feed = Feed(decoder, plan, full=True)
    rows = feed.change(
        frame.update(OID, ["1", "a", "2"], full=["1", "a", "1"]),
        frame.update(OID, ["1", "b", "2"], full=["1", "a", "2"]),
        frame.update(OID, ["1", "b", None], full=["1", "b", "2"]),
        frame.update(OID, ["1", "b", None], full=["1", "b", None]),
    )
    assert brief(rows, "note", "n", "_is_deleted") == [
        (b"a", 1, 1),
        (b"a", 2, 0),
        (b"b", 2, 0),
        (b"b", 2, 1),
        (b"b", None, 0),
        (b"b", None, 0),
    ]


def test_in_a_history_a_row_that_sorts_elsewhere_is_not_deleted(decoder: ModuleType) -> None:
    plan = plan_of(NOTE, full=True, options={"order_by": ["n"], "shape": "history"})
    rows = Feed(decoder, plan, full=True).change(
        frame.update(OID, ["1", "a", "2"], full=["1", "a", "1"]),
        frame.update(OID, ["2", "a", "3"], full=["1", "a", "2"]),
    )
    assert brief(rows, "id", "n", "_operation") == [(1, 2, 2), (1, 2, 3), (2, 3, 2)]


def test_an_update_of_a_keyless_table_is_always_two_rows(decoder: ModuleType) -> None:
    plan = plan_of(NOTE, (), full=True)
    feed = Feed(decoder, plan, full=True)
    rows = feed.change(
        frame.insert(OID, ["1", "a", None]),
        frame.update(OID, ["1", LEFT_OUT, "5"], full=["1", "a", None]),
        frame.update(OID, ["1", LEFT_OUT, "5"], full=["1", "a", "5"]),
        frame.delete(OID, full=["1", "a", "5"]),
    )
    assert brief(rows, "id", "note", "n", "_is_deleted") == [
        (1, b"a", None, 0),
        (1, b"a", None, 1),
        (1, b"a", 5, 0),
        (1, b"a", 5, 1),
        (1, b"a", 5, 0),
        (1, b"a", 5, 1),
    ]


def test_a_keyless_table_has_no_holes(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE, (), full=True), full=True)
    with pytest.raises(FrameError, match=r"public\.t"):
        feed.transaction(frame.update(OID, ["1", LEFT_OUT, None]))


@pytest.mark.parametrize("type_", ["float4", "float8"])
def test_floats_of_a_key_are_normalised(decoder: ModuleType, type_: str) -> None:
    layout = "<f" if type_ == "float4" else "<d"
    feed = Feed(decoder, plan_of(f"id {type_}, other {type_}"))
    feed.transaction(
        frame.insert(OID, ["-0", "-0"]),
        frame.update(OID, ["0", "0"], key=["-0", None]),
        frame.insert(OID, ["NaN", "NaN"]),
    )
    batch = feed.take()
    assert batch.rows == 3
    assert batch.columns[0].values == struct.pack(layout, 0.0) * 2 + struct.pack(layout, float("nan"))
    assert batch.columns[1].values == struct.pack(layout, -0.0) + struct.pack(layout, 0.0) + struct.pack(
        layout, float("nan")
    )


# NULL and unfit values


def test_null_is_the_types_zero_where_null_is_not_possible(decoder: ModuleType) -> None:
    types = [
        "int2",
        "int8",
        "oid",
        "float8",
        "bool",
        "numeric(9,2)",
        "text",
        "bytea",
        "uuid",
        "date",
        "timestamptz",
        "time",
        "enum",
    ]
    columns = ", ".join(f"c{number} {name}" for number, name in enumerate(types))
    plan = plan_of(f"id int4, {columns}", nullable=False)
    feed = Feed(decoder, plan)
    feed.transaction(frame.insert(OID, ["1", *([None] * len(types))]))
    batch = feed.take()
    assert batch.unfit == ()
    assert [column.nulls for column in batch.columns] == [None] * len(batch.columns)
    assert [column.values for column in batch.columns[1:-2]] == [
        bytes(column.codec.width or 1) for column in plan.columns[1:]
    ]


UNFIT = "id int4, a numeric(5,2), d date, ts timestamp"


def test_unfit_values_are_counted_by_column_and_reason(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(UNFIT))
    feed.transaction(
        frame.insert(OID, ["1", "NaN", "infinity", "-infinity"]),
        frame.insert(OID, ["2", "1000", "1899-12-31", "10000-01-01 00:00:00"]),
        frame.insert(OID, ["3", "NaN", None, None]),
        frame.insert(OID, ["4", "1.001", "2024-02-29", None]),
    )
    batch = feed.take()
    assert batch.unfit == (
        Unfit("a", "nan", 2, (b"1",)),
        Unfit("a", "too many digits", 2, (b"2",)),
        Unfit("d", "infinity", 1, (b"1",)),
        Unfit("d", "out of range", 1, (b"2",)),
        Unfit("ts", "infinity", 1, (b"1",)),
        Unfit("ts", "out of range", 1, (b"2",)),
    )
    (date_low, date_high), (low, high) = SERVER.date32, SERVER.datetime64
    assert brief(rows_of(batch), "a", "d", "ts") == [
        (None, date_high, low),
        (None, date_low, high),
        (None, None, None),
        (None, 19_782, None),
    ]
    assert b"".join(feed_zeros(batch, 1)) == bytes(4 * 4)


def feed_zeros(batch: Batch, column: int) -> list[bytes]:
    """Where a NULL stands, the values hold the type's zero."""
    nulls, values = batch.columns[column].nulls, batch.columns[column].values
    assert nulls is not None
    width = len(values) // len(nulls)
    return [values[row * width : (row + 1) * width] for row, null in enumerate(nulls) if null]


def test_null_is_an_empty_object_where_json_has_no_null(decoder: ModuleType) -> None:
    plan = compile_plan(
        table_of("id int4, a jsonb"), pipe_of(json="json", nullable=False), dataclasses.replace(SERVER, json=True)
    )
    feed = Feed(decoder, plan)
    feed.transaction(
        frame.insert(OID, ["1", None]),
        frame.insert(OID, ["2", '{"a": 1}']),
        frame.insert(OID, ["3", " [1]"]),
        frame.delete(OID, key=["4", None]),
    )
    batch = feed.take()
    assert [row["a"] for row in rows_of(batch)] == [b"{}", b'{"a": 1}', b"{}", b"{}"]
    assert batch.unfit == (Unfit("a", "no object", 1, (b"3",)),)


def test_unfit_numerics_without_null(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(UNFIT, nullable=False))
    values = ["NaN", "Infinity", "-Infinity", "1000", "-1000.5", "1.239", "-1.239"]
    feed.transaction(*(frame.insert(OID, [str(row), value, None, None]) for row, value in enumerate(values)))
    batch = feed.take()
    expected = ["0", "999.99", "-999.99", "999.99", "-999.99", "1.23", "-1.23"]
    assert [str(row["a"].normalize()) for row in rows_of(batch)] == expected
    assert batch.unfit == (
        Unfit("a", "nan", 1, (b"0",)),
        Unfit("a", "infinity", 2, (b"1",)),
        Unfit("a", "too many digits", 4, (b"3",)),
    )


def test_only_values_that_are_written_count(decoder: ModuleType) -> None:
    """A full old tuple is compared by its key; its other values count only in a tombstone."""
    feed = Feed(decoder, plan_of(UNFIT, full=True), full=True)
    feed.transaction(frame.update(OID, ["1", "1", None, None], full=["1", "NaN", "infinity", None]))
    assert feed.take().unfit == ()
    feed.transaction(frame.delete(OID, full=["1", "NaN", "infinity", None]))
    assert feed.take().unfit == (Unfit("a", "nan", 1, (b"1",)), Unfit("d", "infinity", 1, (b"1",)))


# History


def test_history_rows(decoder: ModuleType) -> None:
    plan = plan_of(NOTE, options={"shape": "history"})
    feed = Feed(decoder, plan)
    rows = feed.change(
        frame.insert(OID, ["1", "a", None]),
        frame.update(OID, ["1", LEFT_OUT, "5"]),
        frame.update(OID, ["2", LEFT_OUT, "6"], key=["1", None, None]),
        frame.delete(OID, key=["2", None, None]),
    )
    assert brief(rows, "id", "note", "n", "_is_deleted", "_operation") == [
        (1, b"a", None, 0, 1),
        (1, b"a", 5, 0, 2),
        (1, None, None, 1, 3),
        (2, b"a", 6, 0, 2),
        (2, None, None, 1, 3),
    ]
    assert {row["_committed_at"] for row in rows} == {frame.POSTGRES_EPOCH}


def test_history_keeps_commit_times_before_1970(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE, options={"shape": "history"}))
    feed.transaction(frame.insert(OID, ["1", "a", None]), committed_at=-1)
    assert [row["_committed_at"] for row in feed.rows()] == [-1]


def test_history_keeps_a_row_for_a_truncate(decoder: ModuleType) -> None:
    plan = plan_of(NOTE, options={"shape": "history"})
    feed = Feed(decoder, plan)
    feed.send(feed.relation(77))
    items = feed.transaction(
        frame.insert(OID, ["1", "a", None]), frame.truncate([OID, 77]), frame.update(OID, ["1", LEFT_OUT, None])
    )
    assert len(items) == 1
    batch = feed.take()
    rows = rows_of(batch)
    assert brief(rows, "id", "note", "n", "_is_deleted", "_operation", "_version")[1] == (
        0,
        None,
        None,
        1,
        4,
        version_of(0, 0x100, 2),
    )
    assert len(rows) == 3
    assert [hole.row for hole in batch.holes] == [2]  # nothing is folded across the TRUNCATE


def test_a_truncate_that_fills_a_history_batch(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE, options={"shape": "history"}), max_rows=1)
    items = feed.transaction(frame.truncate([OID]))
    assert [type(item).__name__ for item in items] == ["Batch", "Truncate"]
    assert feed.stream.take(TABLE_OID) is None


def test_a_history_without_identity(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE, (), options={"shape": "history"}))
    assert brief(feed.change(frame.insert(OID, ["1", "a", None])), "id", "_operation") == [(1, 1)]


def test_a_plan_for_the_null_engine_has_the_usual_metadata(decoder: ModuleType) -> None:
    feed = Feed(decoder, plan_of(NOTE, options={"shape": "null"}))
    [row] = feed.change(frame.insert(OID, ["1", "a", None]))
    assert list(row) == ["id", "note", "n", "_version", "_is_deleted"]
