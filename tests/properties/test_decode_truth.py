"""The decoders against the table itself: whatever is cut into batches and completed converges to what PostgreSQL holds.

The destination is played here: the newest version of each key wins, and holes are completed from what is stored.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from tests import fix_frames as frame
from tests.faker import OID, Faker, Workload
from tests.native_block import rows_of
from tests.plans import TABLE_OID

from penstock.batch import Batch, Hole, Relation, Value, varint
from penstock.clickhouse.lookup import Stored
from penstock.decode import reference
from penstock.pipeline import places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from tests.faker import Row, Schema

    from penstock.pipeline.complete import Identity
    from penstock.plan import Plan

KEYS = ("int4", "int8", "text", "uuid", "numeric(12,3)", "date", "bytea")
TYPES = (*KEYS, *(["text"] * 8), "bytea", "numeric", "bool", "timestamptz", "time", "jsonb")
DAY = date(1970, 1, 1)
START = datetime(1970, 1, 1, tzinfo=UTC)


def meant(type_: str, text: str | None) -> Any:
    """What PostgreSQL's text means, read by Python's own types."""
    if text is None:
        return None
    match type_.partition("(")[0]:
        case "int4" | "int8":
            return int(text)
        case "numeric":
            return Decimal(text)
        case "uuid":
            return uuid.UUID(text)
        case "bytea":
            return bytes.fromhex(text[2:])
        case "bool":
            return text == "t"
        case "date":
            return (date.fromisoformat(text) - DAY).days
        case "timestamptz":
            return (datetime.fromisoformat(text).replace(tzinfo=UTC) - START) // timedelta(microseconds=1)
        case "time":
            return (datetime.fromisoformat(f"1970-01-01 {text}").replace(tzinfo=UTC) - START) // timedelta(
                microseconds=1
            )
        case _:
            return text.encode()


class Destination:
    """A ReplacingMergeTree: by key the newest row; of an event log every event once, and the rows that are left of it."""

    def __init__(self, schema: Schema, chance: Callable[[float], bool]) -> None:
        self.schema = schema
        self.chance = chance
        self.names = [column.name for column in schema.plan.columns]
        keyed = [self.names[index] for index in schema.plan.key]
        self.key = [*keyed, "_version", "_is_deleted"] if schema.plan.event_log else keyed
        self.replaying = False
        self.source: list[Row] = []
        self.newest_rows: dict[tuple[Any, ...], dict[str, Any]] = {}

    def meant(self, row: Row) -> tuple[Any, ...]:
        """NULL stands as the type's zero where the column cannot hold it."""
        values = zip(self.schema.types, row, self.schema.plan.columns, strict=True)
        return tuple(
            zero_of(type_) if text is None and not column.nullable else meant(type_, text)
            for type_, text, column in values
        )

    def insert(self, batch: Batch, *, lossy: bool = False) -> None:
        """``lossy``: the process is killed meanwhile, and only some partitions have it."""
        if any(hole.columns for hole in batch.holes):
            self.complete(batch)
        if batch.holes:
            places.settle(batch, self)
        moving = [batch.values(index) for index in self.schema.plan.moving]
        for number, row in enumerate(rows_of(batch)):
            if lossy and self.chance(0.5):
                continue
            row["moving"] = {
                index: values[number] for index, values in zip(self.schema.plan.moving, moving, strict=True)
            }
            key = tuple(row[name] for name in self.key)
            if key not in self.newest_rows or self.newest_rows[key]["_version"] <= row["_version"]:
                self.newest_rows[key] = row

    def places(self, _plan: Plan, identities: Sequence[Identity]) -> dict[Identity, list[Stored]]:
        """As the lookup finds them, when everything is merged already."""
        return {
            identity: [
                Stored(row["_version"], False, row["moving"]) for row in self.of(identity) if not row["_is_deleted"]
            ]
            for identity in identities
        }

    def of(self, identity: Identity) -> list[dict[str, Any]]:
        wanted, places = self.meant_identity(identity), self.schema.plan.identity
        rows = self.newest_rows.values()
        return [row for row in rows if tuple(row[self.names[index]] for index in places) == wanted]

    def meant_identity(self, identity: Identity) -> tuple[Any, ...]:
        texts = zip(self.schema.plan.identity, identity, strict=True)
        return tuple(meant(self.schema.types[index], text.decode()) for index, text in texts)

    def replay(self, batches: Sequence[Batch]) -> None:
        self.replaying = True
        for batch in batches:
            self.insert(batch)
        self.replaying = False

    def complete(self, batch: Batch) -> None:
        fills: dict[tuple[int, int], Value] = {}
        for hole in batch.holes:
            known = self.known(hole)
            for column in hole.columns:
                if hole.after >= 0 and (hole.after, column) in fills:
                    fills[hole.row, column] = fills[hole.after, column]
                elif row := known or self.read_again(hole):
                    fills[hole.row, column] = self.encoded(column, row[self.names[column]])
        gone = [hole.row for hole in batch.holes if hole.columns and (hole.row, hole.columns[0]) not in fills]
        assert self.replaying or not gone
        batch.mark_deleted(gone)
        batch.complete(fills)

    def known(self, hole: Hole) -> dict[str, Any] | None:
        """The row's own or a newer one, in a replay; else what it was."""
        first = hole.after < 0
        for identity, newer in ((hole.identity, True), (hole.old_identity, False))[: 2 if first else 1]:
            if not identity:  # a new row
                continue
            row = max(self.of(identity), key=lambda each: (each["_version"], not each["_is_deleted"]), default=None)
            if row and not row["_is_deleted"] and (row["_version"] >= hole.version) == newer:
                return row
        return None

    def read_again(self, hole: Hole) -> dict[str, Any] | None:
        """What the source holds by now; only in a replay can it be needed."""
        assert self.replaying
        wanted = self.meant_identity(hole.identity)
        rows = [dict(zip(self.names, self.meant(row), strict=True)) for row in self.source]
        found = [row for row in rows if tuple(row[self.names[index]] for index in self.schema.plan.identity) == wanted]
        return found[0] if found else None

    def encoded(self, column: int, value: Any) -> Value:
        codec = self.schema.plan.columns[column].codec
        if value is None:
            return Value(null=True, data=bytes(codec.width or 1))
        if codec.width:
            return Value(null=False, data=int(value.scaleb(codec.scale)).to_bytes(codec.width, "little", signed=True))
        return Value(null=False, data=varint(len(value)) + value)

    def rows(self) -> Counter[tuple[Any, ...]]:
        held: Counter[tuple[Any, ...]] = Counter()
        for row in self.newest_rows.values():
            if self.schema.plan.event_log or not row["_is_deleted"]:
                held[tuple(row[name] for name in self.names)] += -1 if row["_is_deleted"] else 1
        assert min(held.values(), default=0) >= 0
        return +held


def zero_of(type_: str) -> Any:
    zeros = {
        "numeric": "0",
        "uuid": str(uuid.UUID(int=0)),
        "bytea": "\\x",
        "bool": "f",
        "date": "1970-01-01",
        "time": "00:00:00",
    }
    texts = {**zeros, "timestamptz": "1970-01-01 00:00:00", "text": "", "jsonb": ""}
    return meant(type_, texts.get(type_.partition("(")[0], "0"))


def again(batch: Batch) -> Batch:
    """The batch as the decoder made it: inserting completes it."""
    return replace(batch, columns=[replace(column) for column in batch.columns])


@given(seed=st.integers(0, 2**64 - 1), changes=st.integers(1, 80))
def test_the_destination_converges_to_the_table(decoder: ModuleType, seed: int, changes: int) -> None:
    faker = Faker(seed, tame=True)
    schema = faker.schema(keys=KEYS, types=TYPES, shapes=("current",))
    destination = Destination(schema, faker.chance)
    identity = schema.plan.identity
    workload = Workload(faker, schema, key_of=lambda row: [destination.meant(row)[index] for index in identity])
    destination.source = workload.rows
    workload.start(3)
    copy = reference.CopyDecoder(schema.plan, 1000, 1 << 20, 1)
    for row in workload.rows:
        copy.receive(
            b"\t".join(b"\\N" if text is None else text.encode().replace(b"\\", b"\\\\") for text in row) + b"\n"
        )
    copied = copy.take()
    assert copied
    destination.insert(copied)

    stream = decoder.StreamDecoder(faker.rng.choice((1, 3, 1000)), faker.rng.choice((100, 1 << 20)), ())
    stream.receive(schema.relation)
    assert isinstance(stream.next_item(), Relation)
    stream.bind(OID, schema.plan, tuple(range(len(schema.types))), schema.full)
    said: list[Batch] = []
    for number in range(changes):
        opening = frame.begin(0x100 + number) if number % 3 == 0 else b""
        closing = frame.commit(0x100 + number, 0x200 + number) if number % 3 == 2 else b""
        stream.receive(opening + workload.change() + closing)
        while (item := stream.next_item()) is not None:
            assert isinstance(item, Batch)
            said.append(item)
            killed = faker.chance(0.1)
            destination.insert(again(item), lossy=killed)
            if killed:
                destination.replay([again(each) for each in said[faker.rng.randint(0, len(said) - 1) :]])
        if faker.chance(0.1) and (batch := stream.take(TABLE_OID)):
            said.append(batch)
            destination.insert(again(batch))
        if faker.chance(0.05):  # a replay from somewhere
            destination.replay([again(each) for each in said[faker.rng.randint(0, len(said)) :]])
    if batch := stream.take(TABLE_OID):
        destination.insert(batch)
    assert destination.rows() == Counter(destination.meant(row) for row in workload.rows)
