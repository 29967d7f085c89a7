"""Blocks as ClickHouse takes them, and holes that are completed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.native_block import read_block, rows_of
from tests.plans import plan_of

from penstock import spill
from penstock.batch import Batch, EncodedColumn, Hole, Value, varint, version_of

if TYPE_CHECKING:
    from pathlib import Path


def text(*values: bytes) -> bytes:
    return b"".join(varint(len(value)) + value for value in values)


def a_batch() -> Batch:
    """Rows 1 and 2 have holes in ``note`` and ``price``, row 2 only in ``note``."""
    plan = plan_of("id int4, note text, price numeric(9,2)!, code text!", nullable=True)
    zeros = bytes(4)
    return Batch(
        plan=plan,
        rows=4,
        floor=0,
        committed_at=0,
        columns=[
            EncodedColumn(None, b"".join(number.to_bytes(4, "little") for number in range(4))),
            EncodedColumn(b"\0\0\0\1", text(b"first", b"", b"", b"")),
            EncodedColumn(b"\0\0\0\0", b"\1\0\0\0" + zeros + b"\3\0\0\0\4\0\0\0"),
            EncodedColumn(None, text(b"a", b"", b"c", b"d")),
            EncodedColumn(None, b"".join(version_of(0, 1, row).to_bytes(16, "little") for row in range(4))),
            EncodedColumn(None, bytes(4)),
        ],
        holes=(
            Hole(1, (1, 2, 3), (6, 4, 2), (b"1",), (b"1",), version_of(0, 1, 1), 7),
            Hole(2, (1,), (7,), (b"2",), (b"2",), version_of(0, 1, 2), 7),
        ),
    )


def test_chunks_are_one_block_with_every_column_named() -> None:
    batch = a_batch()
    body = b"".join(batch.chunks())
    assert body[:2] == bytes([6, 4])
    rows = read_block(body)
    assert list(rows[0]) == list(batch.plan.column_names)
    assert [row["note"] for row in rows] == [b"first", b"", b"", None]
    assert [row["_version"] for row in rows] == [version_of(0, 1, row) for row in range(4)]
    assert batch.size == sum(len(column.values) + len(column.nulls or b"") for column in batch.columns)


def test_complete_fills_values_of_any_length() -> None:
    batch = a_batch()
    batch.complete(
        {
            (1, 1): Value(null=False, data=text(b"x" * 300)),
            (2, 1): Value(null=True, data=b"\0"),
            (1, 2): Value(null=False, data=b"\x63\0\0\0"),
            (1, 3): Value(null=False, data=text(b"filled")),
        }
    )
    rows = rows_of(batch)
    assert [row["note"] for row in rows] == [b"first", b"x" * 300, None, None]
    assert [str(row["price"]) for row in rows] == ["0.01", "0.99", "0.03", "0.04"]
    assert [row["code"] for row in rows] == [b"a", b"filled", b"c", b"d"]


def test_values_that_wait_in_a_file_are_sent_like_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 400)
    kept = spill.Spill(tmp_path / "made")
    values = {(1, 1): text(b"x" * 300), (2, 1): text(b"y" * 200), (1, 3): text(b"z" * 100)}
    fills = {place: Value(null=False, data=kept.keep(data)) for place, data in values.items()}
    assert [isinstance(value.data, bytes) for value in fills.values()] == [True, False, False]
    batch, plain = a_batch(), a_batch()
    batch.complete(fills)
    plain.complete({place: Value(null=False, data=data) for place, data in values.items()})
    assert b"".join(batch.chunks()) == b"".join(plain.chunks())
    assert b"".join(batch.chunks()) == b"".join(plain.chunks())
    assert list((tmp_path / "made").iterdir()) == []


def test_other_holes_become_null_or_zero() -> None:
    """Their rows are tombstones; ClickHouse would refuse an empty text that is to be JSON."""
    batch = a_batch()
    batch.complete({(2, 1): Value(null=False, data=text(b"late"))})
    assert [row["note"] for row in rows_of(batch)] == [b"first", None, b"late", None]
    assert [row["code"] for row in rows_of(batch)] == [b"a", b"", b"c", b"d"]
    before = [(column.nulls, column.values) for column in batch.columns]
    batch.complete({})
    assert [(column.nulls, column.values) for column in batch.columns] == before


def test_a_completed_batch_has_no_holes_to_be_filled_again() -> None:
    batch = a_batch()
    fills = {(1, 1): Value(null=False, data=text(b"once")), (1, 2): Value(null=False, data=b"\x63\0\0\0")}
    batch.complete(fills)
    assert batch.holes == ()
    batch.complete(fills)
    assert [row["note"] for row in rows_of(batch)] == [b"first", b"once", None, None]


def test_mark_deleted() -> None:
    batch = a_batch()
    batch.mark_deleted([1, 3])
    assert [row["_is_deleted"] for row in rows_of(batch)] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("number", "data"),
    [(0, b"\0"), (1, b"\1"), (127, b"\x7f"), (128, b"\x80\1"), (300, b"\xac\2"), (2**63, b"\x80" * 9 + b"\1")],
)
def test_varint(number: int, data: bytes) -> None:
    assert varint(number) == data


def test_versions_are_ordered_by_epoch_then_commit_then_ordinal() -> None:
    versions = [
        version_of(*place)
        for place in [(0, 0, 1), (0, 5, 1), (0, 5, 2), (0, 6, 1), (1, 0, 0), (255, 2**56 - 1, 2**64 - 1)]
    ]
    assert versions == sorted(set(versions))
    assert versions[-1] == 2**128 - 1
