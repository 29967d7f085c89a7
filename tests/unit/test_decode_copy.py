"""COPY's text format: rows in any pieces, escapes, NULL, limits, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.native_block import rows_of
from tests.plans import plan_of

from penstock.batch import Unfit, version_of
from penstock.errors import BadDataError, FrameError, UnfitKeyError, UnfitValueError

if TYPE_CHECKING:
    from types import ModuleType

    from penstock.plan import Plan

TWO = "id int4, note text"


def copied(decoder: ModuleType, plan: Plan, *chunks: bytes) -> list[dict[str, Any]]:
    copy = decoder.CopyDecoder(plan, 1000, 1 << 20, 1)
    for chunk in chunks:
        copy.receive(chunk)
    copy.finish()
    batch = copy.take()
    return rows_of(batch) if batch else []


def test_rows(decoder: ModuleType) -> None:
    copy = decoder.CopyDecoder(plan_of(TWO), 1000, 1 << 20, 1)
    copy.receive(b"1\tone\n2\t\\N\n3\t\n")
    batch = copy.take()
    assert rows_of(batch) == [
        {"id": 1, "note": b"one", "_version": 0, "_is_deleted": 0},
        {"id": 2, "note": None, "_version": 0, "_is_deleted": 0},
        {"id": 3, "note": b"", "_version": 0, "_is_deleted": 0},
    ]
    assert (batch.floor, batch.committed_at, batch.text_bytes, batch.holes, batch.folded) == (0, 0, 6, (), 0)
    assert copy.take() is None


def test_a_row_may_come_in_any_pieces(decoder: ModuleType) -> None:
    text = b"1\ta\\tb\\\\\n22\t\\N\n333\t\\x41\n"
    whole = copied(decoder, plan_of(TWO), text)
    assert [row["note"] for row in whole] == [b"a\tb\\", None, b"A"]
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert copied(decoder, plan_of(TWO), text[:first], text[first:second], text[second:]) == whole
    assert copied(decoder, plan_of(TWO), *(text[place : place + 1] for place in range(len(text)))) == whole


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_text_comes_in_any_buffer(decoder: ModuleType, buffer: type) -> None:
    assert [row["note"] for row in copied(decoder, plan_of(TWO), buffer(b"1\ta\n2"), buffer(b"\tb\n"))] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (rb"\b\f\n\r\t\v\\", b"\b\f\n\r\t\v\\"),
        (rb"\101\60\0\377\777\1018", b"A0\0\xff\xffA8"),
        (rb"\x41\x4\x4G\xfFf\x", b"A\4\4G\xfffx"),
        (rb"\q\N\.\"", rb'qN."'),
        (rb"\\N", rb"\N"),
        (rb"\\\\x41", rb"\\x41"),
        (b"\r", b"\r"),
        (b"\x00\xff\xfe", b"\x00\xff\xfe"),
        (rb"\8\9", b"89"),
    ],
)
def test_escapes(decoder: ModuleType, field: bytes, value: bytes) -> None:
    assert [row["note"] for row in copied(decoder, plan_of(TWO), b"1\t" + field + b"\n")] == [value]


def test_an_escaped_number_is_a_number(decoder: ModuleType) -> None:
    assert [row["id"] for row in copied(decoder, plan_of(TWO), b"\\61\\x32\tx\n")] == [12]


def test_one_column(decoder: ModuleType) -> None:
    assert [row["note"] for row in copied(decoder, plan_of("note text", ("note",)), b"\n\na\n")] == [b"", b"", b"a"]


def test_nothing(decoder: ModuleType) -> None:
    assert copied(decoder, plan_of(TWO)) == []
    assert copied(decoder, plan_of(TWO), b"", b"") == []


def test_limits(decoder: ModuleType) -> None:
    copy = decoder.CopyDecoder(plan_of(TWO), 2, 10, 1)
    copy.receive(b"1\ta\n")
    assert not copy.full
    copy.receive(b"2\tb\n")
    assert copy.full
    assert copy.take().rows == 2
    assert not copy.full
    copy.receive(b"3\t" + b"x" * 9 + b"\n")
    assert copy.full
    assert copy.take().text_bytes == 10
    copy.finish()


def test_a_history_of_copied_rows(decoder: ModuleType) -> None:
    copy = decoder.CopyDecoder(plan_of(TWO, options={"shape": "history"}), 1000, 1000, 500)
    copy.receive(b"1\ta\n2\tb\n")
    first = rows_of(copy.take())
    copy.receive(b"3\tc\n")
    rows = [*first, *rows_of(copy.take())]
    assert [row["_version"] for row in rows] == [version_of(0, 0, ordinal) for ordinal in (500, 501, 502)]
    assert {(row["_operation"], row["_committed_at"], row["_is_deleted"]) for row in rows} == {(0, 0, 0)}


def test_unfit_values(decoder: ModuleType) -> None:
    copy = decoder.CopyDecoder(plan_of("id int4, d date"), 1000, 1000, 1)
    copy.receive(b"1\tinfinity\n2\tinfinity\n")
    assert copy.take().unfit == (Unfit("d", "infinity", 2, (b"1",)),)


@pytest.mark.parametrize(
    ("columns", "line", "error", "settings"),
    [
        ("id int4, v int4", b"1\tsecret\n", BadDataError, {}),
        ("v int4, id int4", b"secret\t1\n", BadDataError, {}),
        ("id int4, v date", b"1\tinfinity\n", UnfitValueError, {"on_unfit": "fail"}),
        ("id int4, v numeric", b"1\tNaN\n", UnfitValueError, {"on_unfit": "fail"}),
    ],
)
def test_refused_values(
    decoder: ModuleType, columns: str, line: bytes, error: type[Exception], settings: dict[str, Any]
) -> None:
    with pytest.raises(error) as caught:
        copied(decoder, plan_of(columns, **settings), line)
    said = str(caught.value)
    assert "public.t" in said
    assert '"v"' in said
    assert "secret" not in said


def test_an_unfit_key(decoder: ModuleType) -> None:
    with pytest.raises(UnfitKeyError, match=r'"v" of public\.t is part of the key'):
        copied(decoder, plan_of("v date, id int4", ("v",)), b"infinity\t1\n")


@pytest.mark.parametrize(
    "text",
    [b"1\n", b"1\t2\t3\n", b"\n", b"1\t2\n\n", b"1\ta\\\n", b"1\\\ta\n", b"1\t\\\\\\\n", b"1\ta", b"1\ta\n2", b"1"],
)
def test_text_that_is_not_copys(decoder: ModuleType, text: bytes) -> None:
    with pytest.raises(FrameError, match=r"public\.t") as caught:
        copied(decoder, plan_of(TWO), text)
    assert caught.value.hint


def test_rows_before_a_bad_one_stay_takeable(decoder: ModuleType) -> None:
    copy = decoder.CopyDecoder(plan_of(TWO), 1000, 1000, 1)
    copy.receive(b"1\ta\n")
    with pytest.raises(BadDataError):
        copy.receive(b"x\tb\n")
    assert copy.take().rows == 1
