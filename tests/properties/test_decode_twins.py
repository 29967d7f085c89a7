"""Both decoders on the same random streams and copies: they say the same about everything."""

from __future__ import annotations

import importlib

from hypothesis import example, given
from hypothesis import strategies as st
from tests import traces
from tests.faker import OID, Faker
from tests.fix_frames import IMPLEMENTATIONS
from tests.native_block import rows_of
from tests.streams import LEAF, limits, stream_of

from penstock.batch import version_of

MODULES = [importlib.import_module(name) for name in IMPLEMENTATIONS]
SEEDS = st.integers(0, 2**64 - 1)
SIZES = st.integers(0, 60)


@given(seed=SEEDS, changes=SIZES)
@example(seed=0, changes=60)
def test_streams(seed: int, changes: int) -> None:
    faker = Faker(seed)
    schema = faker.schema()
    full = schema.full if faker.chance(0.9) else not schema.full
    plans = {OID: (schema.plan, full), LEAF: (schema.plan, full)}
    chunks = stream_of(faker, schema, changes)
    bounds, take_each = limits(faker), faker.rng.choice((0, 1, 5))
    since = version_of(1, 0x100 + 0x10 * faker.rng.choice((-10, 0, changes // 2, changes)), 0)
    first, *others = [
        traces.of_stream(module, plans, chunks, bounds, take_each=take_each, since=since) for module in MODULES
    ]
    for other in others:
        assert other == first


def escaped(faker: Faker, text: str | None) -> bytes:
    """COPY's text of a value: what must be escaped, and sometimes what need not be."""
    if text is None:
        return b"\\N"
    out = bytearray()
    named = {8: b"\\b", 9: b"\\t", 10: b"\\n", 11: b"\\v", 12: b"\\f", 13: b"\\r", 92: b"\\\\"}
    for byte in text.encode():
        if byte in named:
            out += named[byte]
        elif faker.chance(0.02):
            out += b"\\%03o" % byte if faker.chance(0.5) else b"\\x%02x" % byte
        else:
            out.append(byte)
    return bytes(out)


@given(seed=SEEDS, count=SIZES)
@example(seed=0, count=60)
def test_copies(seed: int, count: int) -> None:
    faker = Faker(seed)
    schema = faker.schema()
    rows = [faker.row(schema) for _ in range(count)]
    text = b"".join(b"\t".join(escaped(faker, value) for value in row) + b"\n" for row in rows)
    cuts = sorted(faker.rng.randint(0, len(text)) for _ in range(faker.rng.randint(0, 10)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    first, *others = [traces.of_copy(module, schema.plan, chunks, limits(Faker(seed))) for module in MODULES]
    for other in others:
        assert other == first


@given(seed=SEEDS, count=st.integers(1, 60))
def test_copied_text_is_the_text(seed: int, count: int) -> None:
    faker = Faker(seed, tame=True)
    schema = faker.schema(keys=("text",), types=("text", "jsonb"), shapes=("current",))
    faker.tame = False
    rows = [tuple(faker.text(schema, index) for index in range(len(schema.types))) for _ in range(count)]
    text = b"".join(b"\t".join(escaped(faker, value) for value in row) + b"\n" for row in rows)
    for module in MODULES:
        copy = module.CopyDecoder(schema.plan, 1000, 1 << 20, 1)
        copy.receive(text)
        copy.finish()
        got = [tuple(row.values())[:-2] for row in rows_of(copy.take())]
        nothing = [None if column.nullable else b"" for column in schema.plan.columns]
        malformed = [
            tuple(value.encode() if value is not None else none for value, none in zip(row, nothing, strict=True))
            for row in rows
        ]
        assert got == malformed
