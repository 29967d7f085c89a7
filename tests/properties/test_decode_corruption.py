"""Bytes that are not what they should be: a FrameError or a result that can be read, the same of both decoders, nothing else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import fix_frames as frame
from tests import traces
from tests.faker import OID, Faker
from tests.fix_frames import IMPLEMENTATIONS, LEFT_OUT
from tests.plans import plan_of
from tests.streams import LEAF, limits, stream_of

if TYPE_CHECKING:
    from penstock.plan import Plan

MODULES = [importlib.import_module(name) for name in IMPLEMENTATIONS]

COLUMNS = (
    "id int4, note text, price numeric(9,2), day date, ts timestamptz, ratio float8, ok bool, raw bytea, u uuid, t time"
)
UUID = "00112233-4455-6677-8899-aabbccddeeff"
ROW = ["17", "ab", "1.50", "2024-02-29", "2024-02-29 12:00:00.5+00", "1.5e+20", "t", "\\x0aff", UUID, "24:00:00"]
NESTED = "id int4, list int4[], words text[][], more hstore, v vector, s sparsevec, g geometry, days date[]!"
POINT = "0101000020E6100000000000000000F03F0000000000000040"
NESTED_ROW = ["17", "{1,NULL}", '{{"a b"},{NULL}}', '"k"=>"v", "n"=>NULL', "[1,2.5]", "{2:1}/3", POINT, "{infinity}"]


THOROUGH = pytest.mark.parametrize("most", [1, pytest.param(100, marks=pytest.mark.slow)])


def frames_of(plan: Plan, row: list[str]) -> list[bytes]:
    """Every kind of message; the first says what the table is like."""
    old = [str(int(row[0]) - 1), *([None] * (len(row) - 1))]
    return [
        frame.relation(OID, [(column.name, 1) for column in plan.table.columns]),
        frame.begin(0x100, committed_at=1_700_000_000_000_000),
        frame.keepalive(0x90, reply=True),
        frame.insert(OID, row),
        frame.insert(OID, [row[0], *([None] * (len(row) - 1))]),
        frame.update(OID, ["17", LEFT_OUT, *row[2:]]),
        frame.update(OID, ["18", LEFT_OUT, *row[2:]], key=["17", *old[1:]]),
        frame.update(OID, ["18", *row[1:]], full=row),
        frame.delete(OID, key=old),
        frame.delete(OID, full=row),
        frame.truncate([OID, OID + 1], cascade=True, restart_identity=True),
        frame.message("p", b"c"),
        frame.origin("o"),
        frame.type_(7, "m"),
        frame.relation(OID + 1, [("é", 25, 7, True)], identity="f", name="x y"),
        frame.commit(0x100, 0x110),
        frame.keepalive(0x120),
    ]


PLANS = [
    plan_of(COLUMNS),
    plan_of(COLUMNS, options={"shape": "history"}),
    plan_of(COLUMNS, nullable=False),
    plan_of(COLUMNS, on_unfit="fail"),
    plan_of(NESTED),
    plan_of(NESTED, nullable=False),
]
SCALAR, WITH_NESTED = frames_of(PLANS[0], ROW), frames_of(PLANS[4], NESTED_ROW)
FRAMES = [SCALAR] * 4 + [WITH_NESTED] * 2
KINDS = dict(
    zip(
        b"BCORYIUDTM",
        ("Begin", "Commit", "Origin", "Relation", "Type", "Insert", "Update", "Delete", "Truncate", "Message"),
        strict=True,
    )
)
KIND, HEADER = 25, 4  # where the kind of a data message stands in its payload; bytes of the length before


def copied(row: list[str]) -> bytes:
    nulls, length = b"\t\\N", len(row) - 1
    first = b"\t".join(text.encode().replace(b"\\", b"\\\\") for text in row)
    return first + b"\n2" + nulls * length + b"\n3\ta\\tb" + nulls * (length - 1) + b"\n"


COPIES = [copied(ROW)] * 4 + [copied(NESTED_ROW).replace(b"a\\tb", b"{7}")] * 2


def agreed(number: int, stream: bytes) -> traces.Trace:
    """What every decoder says."""
    plans = {OID: (PLANS[number], bool(number % 2))}
    first, *others = [traces.of_stream(module, plans, [stream], (100, 1 << 20)) for module in MODULES]
    for other in others:
        assert other == first
    return first


def around(number: int, index: int, changed: bytes) -> bytes:
    """A stream with ``changed`` in the place of one message, and rows before and behind it."""
    relation, begin, *_ = frames = FRAMES[number]
    before = [] if index == 0 else [relation] if index == 1 else [relation, begin, frames[4]]
    return b"".join((*before, changed, frames[3], frames[-2]))


def some(changes: set[int], place: int, most: int) -> list[int]:
    """Up to ``most``, others at every place."""
    ordered = sorted(changes)
    return [ordered[(place * most + number) % len(ordered)] for number in range(min(most, len(ordered)))]


def error_of(trace: traces.Trace) -> str:
    return trace[-1] if trace and isinstance(trace[-1], str) else ""


def agreed_copy(number: int, text: bytes) -> traces.Trace:
    first, *others = [traces.of_copy(module, PLANS[number], [text], (100, 1 << 20)) for module in MODULES]
    for other in others:
        assert other == first
    return first


def test_the_stream_is_sound() -> None:
    for number, frames in enumerate(FRAMES):
        assert agreed(number, b"".join(frames))[-1].rows >= 9
        assert agreed_copy(number, COPIES[number])[-1].rows == 3


@pytest.mark.parametrize("number", [0, 5])
def test_a_stream_cut_anywhere(number: int) -> None:
    stream, edges = b"".join(FRAMES[number]), {0}
    for each in FRAMES[number]:
        edges.add(max(edges) + len(each))
    for place in range(len(stream)):
        error = error_of(agreed(number, stream[:place]))
        assert (error == "") == (place in edges)
        assert not error or "cut off" in error


@pytest.mark.parametrize("index", range(len(SCALAR)))
def test_a_message_that_ends_too_soon_is_named(index: int) -> None:
    for number in (0, 4):
        payload = FRAMES[number][index][HEADER:]
        for place in range(number != 0 and KIND, len(payload)):
            error = error_of(agreed(number, around(number, index, frame.framed(payload[:place]))))
            assert error.startswith("FrameError: ")
            if place > KIND and payload[:1] == b"w":
                assert f"{KINDS[payload[KIND]]} at 0/" in error


@THOROUGH
@pytest.mark.parametrize("index", range(len(SCALAR)))
def test_a_byte_changed_anywhere(index: int, most: int) -> None:
    for numbers, others in (((0, 1, 2, 3), b"\0\xffu-"), ((4, 5), b'\xff{",')):
        whole = FRAMES[numbers[0]][index]
        for place, byte in enumerate(whole):
            for changed in some({byte ^ 1, byte ^ 0x80, (byte + 1) % 256, *others} - {byte}, place, most):
                number = numbers[(place + changed) % len(numbers)]
                agreed(number, around(number, index, whole[:place] + bytes([changed]) + whole[place + 1 :]))


@THOROUGH
@pytest.mark.parametrize("index", range(len(SCALAR)))
def test_a_byte_too_many_or_too_few_within_its_frame(index: int, most: int) -> None:
    for number in (index % 4, 4):
        payload = FRAMES[number][index][HEADER:]
        for place in range(len(payload) + 1):
            before, after = payload[:place], payload[place:]
            for wrong in (before + after[1:], before + b"1" + after)[place % 2 * (most == 1) :][:most]:
                agreed(number, around(number, index, frame.framed(wrong)))


def test_unknown_kinds_are_named() -> None:
    for kind in set(range(256)) - set(KINDS):
        error = error_of(agreed(0, around(0, 9, frame.xlog(bytes([kind]) + b"\0\0\0\1N", start=0x1000))))
        assert "a message at 0/1000: the message is of the unknown kind" in error
        for payload in (bytes([kind]), bytes([kind]) * 40):
            if kind not in b"wk":
                assert "neither data nor a keep-alive" in error_of(agreed(0, around(0, 9, frame.framed(payload))))


def test_frames_left_out_doubled_or_swapped() -> None:
    for index in range(len(SCALAR)):
        agreed(0, b"".join(SCALAR[:index] + SCALAR[index + 1 :]))
        agreed(1, b"".join(SCALAR[: index + 1] + SCALAR[index:]))
        for other in range(index):
            swapped = list(SCALAR)
            swapped[index], swapped[other] = swapped[other], swapped[index]
            agreed(other % 4, b"".join(swapped))


@THOROUGH
@pytest.mark.parametrize("number", range(len(PLANS)))
def test_a_copy_changed_or_cut_anywhere(number: int, most: int) -> None:
    text = COPIES[number]
    for place, byte in enumerate(text):
        cut = agreed_copy(number, text[:place])
        assert error_of(cut[:-1]) or place == 0 or text[place - 1] == ord("\n")
        for changed in some({0, 9, 10, 92, 0xFF, *b'N{}",.x7', byte ^ 1} - {byte}, place, most):
            agreed_copy(number, text[:place] + bytes([changed]) + text[place + 1 :])


@given(seed=st.integers(0, 2**64 - 1), changes=st.integers(1, 20))
def test_random_streams_damaged_at_random(seed: int, changes: int) -> None:
    faker = Faker(seed)
    schema = faker.schema()
    chunks = stream_of(faker, schema, changes)
    for _ in range(faker.rng.randint(1, 3)):
        number = faker.rng.randrange(len(chunks))
        chunk = bytearray(chunks[number])
        place = faker.rng.randint(0, len(chunk))
        chunk[place : place + faker.rng.choice((0, 1, 1, 1, 4))] = faker.rng.randbytes(
            faker.rng.choice((0, 1, 1, 1, 4))
        )
        chunks[number] = bytes(chunk)
    plans = {OID: (schema.plan, schema.full), LEAF: (schema.plan, schema.full)}
    first, *others = [traces.of_stream(module, plans, chunks, limits(Faker(seed))) for module in MODULES]
    for other in others:
        assert other == first
