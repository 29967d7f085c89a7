"""Random streams of two relations that share a table, and of one that is nobody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import fix_frames as frame
from tests.faker import OID, Faker, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faker import Schema

LEAF, STRANGER = OID + 1, OID + 2


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
    workload = Workload(faker, schema, key_of=lambda row: [row[index] for index in schema.plan.identity])
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
