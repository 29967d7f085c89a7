"""Bytes that are not what they should be: a FrameError or a result that can be read, the same of both decoders, nothing else."""

from __future__ import annotations

import importlib

from hypothesis import given
from hypothesis import strategies as st
from tests import fix_frames as frame
from tests import traces
from tests.faker import OID, Faker
from tests.fix_frames import IMPLEMENTATIONS, LEFT_OUT
from tests.plans import plan_of
from tests.streams import LEAF, limits, stream_of

MODULES = [importlib.import_module(name) for name in IMPLEMENTATIONS]

COLUMNS = (
    "id int4, note text, price numeric(9,2), day date, ts timestamptz, ratio float8, ok bool, raw bytea, u uuid, t time"
)
UUID = "00112233-4455-6677-8899-aabbccddeeff"
ROW = ["17", "ab", "1.50", "2024-02-29", "2024-02-29 12:00:00.5+00", "1.5e+20", "t", "\\x0aff", UUID, "24:00:00"]
OLD = ["16", *([None] * 9)]
PLANS = [
    plan_of(COLUMNS),
    plan_of(COLUMNS, options={"shape": "history"}),
    plan_of(COLUMNS, nullable=False),
    plan_of(COLUMNS, on_unfit="fail"),
]
FRAMES = [
    frame.relation(OID, [(column.name, 1) for column in PLANS[0].table.columns]),
    frame.keepalive(0x90, reply=True),
    frame.begin(0x100, committed_at=1_700_000_000_000_000),
    frame.insert(OID, ROW),
    frame.update(OID, ["17", LEFT_OUT, *ROW[2:]]),
    frame.update(OID, ["18", LEFT_OUT, *ROW[2:]], key=["17", *OLD[1:]]),
    frame.update(OID, ["18", *ROW[1:]], full=ROW),
    frame.delete(OID, key=OLD),
    frame.truncate([OID]),
    frame.message("p", b"c"),
    frame.origin("o"),
    frame.type_(7, "m"),
    frame.commit(0x100, 0x110),
    frame.keepalive(0x120),
]
STREAM = b"".join(FRAMES)
COPY = (
    b"\t".join(text.encode().replace(b"\\", b"\\\\") for text in ROW)
    + b"\n2"
    + b"\t\\N" * 9
    + b"\n3\ta\\tb"
    + b"\t\\N" * 8
    + b"\n"
)


def agreed(plan_number: int, chunks: list[bytes]) -> traces.Trace:
    """What every decoder says."""
    full = bool(plan_number % 2)
    first, *others = [
        traces.of_stream(module, {OID: (PLANS[plan_number], full)}, chunks, (100, 1 << 20)) for module in MODULES
    ]
    for other in others:
        assert other == first
    return first


def test_the_stream_is_sound() -> None:
    for number in range(len(PLANS)):
        assert agreed(number, [STREAM])[-1].rows >= 7


def test_a_stream_cut_anywhere() -> None:
    edges = {sum(len(each) for each in FRAMES[:count]) for count in range(len(FRAMES) + 1)}
    for place in range(len(STREAM)):
        assert (agreed(place % len(PLANS), [STREAM[:place]])[-1] == "FrameError") == (place not in edges)


def test_a_byte_changed_anywhere() -> None:
    for place in range(len(STREAM)):
        byte = STREAM[place]
        for changed in {byte ^ 1, byte ^ 0x80, 0, 0xFF, ord("u"), ord("-"), (byte + 1) % 256} - {byte}:
            agreed((place + changed) % len(PLANS), [STREAM[:place] + bytes([changed]) + STREAM[place + 1 :]])


def test_a_byte_too_many_or_too_few_within_its_frame() -> None:
    for index, whole in enumerate(FRAMES):
        payload = whole[4:]
        for place in range(len(payload)):
            for wrong in (
                payload[:place] + payload[place + 1 :],
                payload[:place] + b"1" + payload[place:],
                payload[:place],
            ):
                agreed(place % len(PLANS), [b"".join((*FRAMES[:index], frame.framed(wrong), *FRAMES[index + 1 :]))])


def test_frames_left_out_doubled_or_swapped() -> None:
    for index in range(len(FRAMES)):
        agreed(0, [b"".join(FRAMES[:index] + FRAMES[index + 1 :])])
        agreed(1, [b"".join(FRAMES[: index + 1] + FRAMES[index:])])
        for other in range(index):
            swapped = list(FRAMES)
            swapped[index], swapped[other] = swapped[other], swapped[index]
            agreed(other % len(PLANS), [b"".join(swapped)])


def test_a_copy_changed_or_cut_anywhere() -> None:
    def agreed_copy(number: int, text: bytes) -> traces.Trace:
        first, *others = [
            traces.of_copy(module, PLANS[number % len(PLANS)], [text], (100, 1 << 20)) for module in MODULES
        ]
        for other in others:
            assert other == first
        return first

    assert agreed_copy(0, COPY)[-1].rows == 3
    for place in range(len(COPY)):
        agreed_copy(place, COPY[:place])
        for changed in {0, 9, 10, 92, 0xFF, ord("N"), ord("x"), ord("7"), COPY[place] ^ 1} - {COPY[place]}:
            agreed_copy(place + changed, COPY[:place] + bytes([changed]) + COPY[place + 1 :])


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
