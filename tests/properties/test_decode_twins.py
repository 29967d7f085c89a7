"""Both decoders on the same random streams and copies: they say the same about everything."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st
from tests import fix_frames as frame
from tests import traces
from tests.faker import OID, Faker, Workload
from tests.fix_frames import IMPLEMENTATIONS
from tests.native_block import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faker import Schema

MODULES = [importlib.import_module(name) for name in IMPLEMENTATIONS]
LEAF, STRANGER = OID + 1, OID + 2
SEEDS = st.integers(0, 2**64 - 1)
SIZES = st.integers(0, 60)


def limits(faker: Faker) -> tuple[int, int]:
    return faker.rng.choice((1, 2, 7, 1000)), faker.rng.choice((1, 200, 1 << 20))


def interludes(faker: Faker, schema: Schema) -> Iterator[bytes]:
    """Messages between the changes."""
    rng = faker.rng
    yield frame.keepalive(rng.randint(0, 5000), reply=faker.chance(0.5))
    yield frame.message("penstock", rng.randbytes(rng.randint(0, 20)), transactional=faker.chance(0.5))
    yield frame.truncate(rng.sample((OID, LEAF, STRANGER), k=rng.randint(1, 3)), cascade=faker.chance(0.5))
    yield frame.origin("elsewhere", lsn=rng.randint(0, 5000))
    yield frame.type_(70_000, "mood")
    yield schema.relation_of(rng.choice((OID, LEAF)))
    yield frame.insert(LEAF, faker.row(schema))
    yield frame.insert(STRANGER, ["1"])
    yield wild_update(faker, schema)


def wild_update(faker: Faker, schema: Schema) -> bytes:
    """An update of any row, with anything left out that can be."""
    identity = schema.plan.identity
    sent = [
        frame.LEFT_OUT if faker.chance(0.3) and index not in identity else text
        for index, text in enumerate(faker.row(schema))
    ]
    old = faker.row(schema)
    match faker.rng.choice("KON"):
        case "K":
            return frame.update(OID, sent, key=old)
        case "O":
            return frame.update(OID, sent, full=old)
        case _:
            return frame.update(OID, sent if identity else old)


def stream_of(faker: Faker, schema: Schema, changes: int) -> list[bytes]:
    """Chunks of whole frames."""
    workload = Workload(
        faker, schema, key_of=lambda row: [row[index] for index in schema.plan.identity or range(len(row))]
    )
    workload.start(3)
    rng = faker.rng
    chunks = [schema.relation + schema.relation_of(LEAF) + frame.relation(STRANGER, [("x", 25)])]
    for number in range(changes):
        lsn = 0x100 + 0x10 * number
        parts = [
            frame.begin(lsn, committed_at=rng.randint(-(10**15), 10**16), xid=rng.getrandbits(32)),
            *(_step(workload) for _ in range(rng.randint(0, 6))),
        ]
        parts.append(frame.commit(lsn, lsn + rng.randint(0, 15)))
        if faker.chance(0.3):
            parts.append(frame.keepalive(lsn + rng.randint(0, 40)))
        cut = rng.randint(0, len(parts))
        chunks += [b"".join(parts[:cut]), b"".join(parts[cut:])]
    return chunks


def _step(workload: Workload) -> bytes:
    faker = workload.faker
    return workload.change() if faker.chance(0.8) else faker.rng.choice(list(interludes(faker, workload.schema)))


@given(seed=SEEDS, changes=SIZES)
@example(seed=0, changes=60)
def test_streams(seed: int, changes: int) -> None:
    faker = Faker(seed)
    schema = faker.schema()
    full = schema.full if faker.chance(0.9) else not schema.full
    plans = {OID: (schema.plan, full), LEAF: (schema.plan, full)}
    chunks = stream_of(faker, schema, changes)
    bounds, take_each = limits(faker), faker.rng.choice((0, 1, 5))
    first, *others = [traces.of_stream(module, plans, chunks, bounds, take_each=take_each) for module in MODULES]
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
