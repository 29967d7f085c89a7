"""Random tables, texts and changes, from one seed: the same seed and a smaller number give a prefix of the same stream."""

from __future__ import annotations

import itertools
import math
import random
import re
import struct
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests import fix_frames as frame
from tests.fix_frames import LEFT_OUT
from tests.plans import plan_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_frames import Text

    from penstock.plan import Plan

TOASTED = ("text", "bytea", "numeric", "int4[]", "text[]", "hstore")
KEYS = ("int4", "int8", "text", "uuid", "numeric(12,3)", "date", "timestamptz", "float8", "bytea", "bool")
TYPES = (
    *KEYS,
    "int2",
    "oid",
    "float4",
    "numeric",
    "numeric(4,2)",
    "numeric(38,0)",
    "numeric(5,5)",
    "timestamp",
    "time",
    "jsonb",
    "enum",
    "int4[]",
    "text[]",
    "text[][]",
    "numeric(4,2)[]",
    "date[]",
    "bytea[]",
    "vector[]",
    "hstore",
    "vector",
    "sparsevec",
    "geometry",
)
OID = 16_384

Row = tuple[str | None, ...]


def _whole(low: int, high: int) -> Callable[[random.Random], str]:
    edges = (low, low + 1, high - 1, high, 0, 1, 10)
    return lambda rng: str(rng.choice(edges) if rng.random() < 0.3 else rng.randint(low, high))


def _digits(rng: random.Random, most: int) -> str:
    return "".join(rng.choices("0123456789", k=rng.randint(0, most)))


def _numeric(rng: random.Random) -> str:
    if rng.random() < 0.05:
        return rng.choice(("NaN", "Infinity", "-Infinity"))
    whole = (_digits(rng, rng.choice((2, 12, 45))).lstrip("0")) or "0"
    fraction = _digits(rng, rng.choice((0, 3, 45)))
    return rng.choice(("", "-")) + whole + ("." + fraction if fraction else "")


def _real(rng: random.Random, most: int) -> str:
    if rng.random() < 0.2:
        return rng.choice(("NaN", "Infinity", "-Infinity", "0", "-0", "1", "0.1"))
    number = rng.choice((rng.uniform(-1000, 1000), rng.uniform(1, 10) * 10.0 ** rng.randint(-most, most)))
    return f"{number:.{rng.randint(1, 17)}g}" if rng.random() < 0.5 else repr(number)


def _day(rng: random.Random) -> str:
    if rng.random() < 0.05:
        return rng.choice(("infinity", "-infinity"))
    year = rng.choice((rng.randint(1950, 2050), rng.randint(1, 9999), rng.randint(1, 294_276)))
    day = rng.randint(1, 28) if rng.random() < 0.9 else 29
    return f"{year:04}-{rng.randint(1, 12):02}-{day:02}" + (" BC" if rng.random() < 0.03 else "")


def _clock(rng: random.Random) -> str:
    fraction = "." + "".join(rng.choices("0123456789", k=rng.randint(1, 6))) if rng.random() < 0.5 else ""
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}{fraction}"


def _moment(rng: random.Random) -> str:
    day = _day(rng)
    if "infinity" in day:
        return day
    day, _, era = day.partition(" ")
    offset = rng.choice(("", "+00", "+00", "+05:30", "-08", "-00:00:01"))
    return f"{day} {_clock(rng)}{offset}" + (f" {era}" if era else "")


def _words(rng: random.Random) -> str:
    length = rng.choice((0, 1, 5, 40, 127, 128, 300))
    return "".join(rng.choices("abc \t\n\r\\'\"\0\x7fäß€𝄞0N.", k=length))


def _array(element: Callable[[random.Random], str], dimensions: int = 1) -> Callable[[random.Random], str]:
    """As array_out prints it; sometimes with bounds, or of other dimensions."""

    def quoted(rng: random.Random) -> str:
        if rng.random() < 0.1:
            return "NULL"
        text = element(rng)
        if text and text != "NULL" and not set(text) & set(' {}",\\\t\n\r'):
            return text
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def listed(rng: random.Random, levels: int) -> str:
        count = rng.choice((1, 1, 2, 3))
        return "{" + ",".join(quoted(rng) if levels == 1 else listed(rng, levels - 1) for _ in range(count)) + "}"

    def make(rng: random.Random) -> str:
        levels = dimensions if rng.random() < 0.9 else rng.randint(1, 6)
        bounds = "[0:1]" * levels + "=" if rng.random() < 0.05 else ""
        return "{}" if rng.random() < 0.1 else bounds + listed(rng, levels)

    return make


def _hstore(rng: random.Random) -> str:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    pairs = (quoted(_words(rng)) + "=>" + (quoted(_words(rng)) if rng.random() < 0.8 else "NULL") for _ in range(3))
    return ", ".join(itertools.islice(pairs, rng.randint(0, 3)))


def _vector(rng: random.Random) -> str:
    return "[" + ",".join(f"{rng.uniform(-9, 9):.6g}" for _ in range(rng.randint(1, 5))) + "]"


def _sparse(rng: random.Random) -> str:
    dimensions = rng.choice((1, 5, 200, 2_000_000))
    places = sorted({rng.randint(1, min(dimensions, 200)) for _ in range(rng.randint(0, 3))})
    return "{" + ",".join(f"{place}:{rng.uniform(-9, 9):.6g}" for place in places) + "}/" + str(dimensions)


def _shape(rng: random.Random, level: int = 0) -> bytes:
    """EWKB."""
    flags = rng.choice((0, 0x8000_0000, 0x4000_0000, 0xC000_0000))
    order, width = rng.choice("<>"), 2 + flags.bit_count()
    if level == 0 and rng.random() < 0.5:
        flags |= 0x2000_0000

    def points(count: int) -> bytes:
        numbers = (rng.choice((0.0, -1.5, 0.1 + 0.2, 1e300, rng.random(), math.nan)) for _ in range(count * width))
        return struct.pack(f"{order}{count * width}d", *numbers)

    def count(number: int) -> bytes:
        return struct.pack(order + "I", number)

    kind = rng.choice((1, 2, 3, 7, 8, 17) if level < 3 else (1, 2)) if rng.random() < 0.6 else rng.randint(0, 18)
    head = (b"\1" if order == "<" else b"\0") + struct.pack(order + "I", kind | flags)
    head += struct.pack(order + "i", 4326) if flags & 0x2000_0000 else b""
    number = rng.randint(0, 2)
    if kind == 1:
        return head + points(1)
    if kind in (2, 8):
        return head + count(number) + points(number)
    if kind in (3, 17):
        return head + count(number) + b"".join(count(2) + points(2) for _ in range(number))
    return head + count(number) + b"".join(_shape(rng, level + 1) for _ in range(number if level < 3 else 0))


def _geometry(rng: random.Random) -> str:
    text = _shape(rng).hex().upper()
    return text if rng.random() < 0.9 else text[: rng.randint(0, len(text))]


VALUES: dict[str, Callable[[random.Random], str]] = {
    "int2": _whole(-(2**15), 2**15 - 1),
    "int4": _whole(-(2**31), 2**31 - 1),
    "int8": _whole(-(2**63), 2**63 - 1),
    "oid": _whole(0, 2**32 - 1),
    "float4": lambda rng: _real(rng, 36),
    "float8": lambda rng: _real(rng, 300),
    "bool": lambda rng: rng.choice("tf"),
    "numeric": _numeric,
    "text": _words,
    "jsonb": _words,
    "enum": lambda rng: rng.choice(("happy", "sad", "")),
    "bytea": lambda rng: "\\x" + rng.randbytes(rng.choice((0, 1, 100, 200))).hex(),
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128))),
    "date": _day,
    "timestamp": _moment,
    "timestamptz": _moment,
    "time": lambda rng: "24:00:00" if rng.random() < 0.1 else _clock(rng),
    "hstore": _hstore,
    "vector": _vector,
    "sparsevec": _sparse,
    "geometry": _geometry,
}
VALUES |= {
    "int4[]": _array(VALUES["int4"]),
    "text[]": _array(_words),
    "text[][]": _array(_words, 2),
    "numeric[]": _array(_numeric),
    "date[]": _array(_day),
    "bytea[]": _array(VALUES["bytea"]),
    "vector[]": _array(_vector),
}
MALFORMED = (
    "{",
    "{1,}",
    '{"a',
    '{"a"b}',
    "{{1},2}",
    "[0:1]={1",
    '"a"=>',
    '"a"=>"1",',
    "[1,",
    "[]",
    "{1:1}/0",
    "{5:1,}/9",
    "",
    "x",
    "-",
    "1.",
    "+1",
    "1e",
    "2024-02-30",
    "\\x0",
    "T",
    "12:00",
    "٣",
    "1_0",
    " 1",
    "NULL",
)


@dataclass
class Schema:
    """A table with its plan. ``full``: old tuples are whole."""

    types: list[str]
    plan: Plan
    full: bool

    @property
    def relation(self) -> bytes:
        return self.relation_of(OID)

    def relation_of(self, oid: int) -> bytes:
        return frame.relation(
            oid, [(column.name, 1) for column in self.plan.table.columns], identity="f" if self.full else "d"
        )


class Faker:
    """Random pieces. ``tame``: only values that their types hold, and no malformed ones."""

    def __init__(self, seed: int, *, tame: bool = False) -> None:
        self.rng = random.Random(seed)
        self.tame = tame

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def schema(
        self,
        *,
        keys: tuple[str, ...] = KEYS,
        types: tuple[str, ...] = TYPES,
        shapes: tuple[str, ...] = ("current", "history", "null"),
    ) -> Schema:
        rng = self.rng
        width = rng.randint(1, 6)
        full = self.chance(0.4)
        key_width = 0 if full and self.chance(0.3) else rng.randint(1, min(2, width))
        chosen = [rng.choice(keys if number < key_width else types) for number in range(width)]
        names = [f"c{number}" for number in range(width)]
        places = list(range(width))
        rng.shuffle(places)  # the key may stand anywhere
        columns = ", ".join(f"{names[place]} {chosen[place]}{'!' if self.chance(0.3) else ''}" for place in places)
        key = names[:key_width]
        options: dict[str, Any] = {"shape": rng.choice(shapes)}
        if (full or key) and self.chance(0.3):
            options["order_by"] = [rng.choice(names)]
        plan = plan_of(
            columns,
            key,
            full=full,
            options=options,
            nullable=self.chance(0.8),
            on_unfit="fail" if self.chance(0.1) else "null",
        )
        return Schema([chosen[place] for place in places], plan, full)

    def text(self, schema: Schema, index: int) -> str | None:
        column = schema.plan.table.columns[index]
        keyed = column.name in schema.plan.table.key
        if not column.not_null and not keyed and self.chance(0.15):
            return None
        if not self.tame and self.chance(0.002):
            return self.rng.choice(MALFORMED)
        if keyed and self.chance(0.8):
            return self._fitting(schema, index)  # unfit keys end the table too soon
        return (
            VALUES[re.sub(r"\(.*\)", "", schema.types[index])](self.rng)
            if not self.tame
            else self._fitting(schema, index)
        )

    def _fitting(self, schema: Schema, index: int) -> str:
        """A value that its type holds for sure, out of a small number of them."""
        rng = self.rng
        number = rng.randint(0, 40)
        match schema.types[index].partition("(")[0]:
            case "text" | "jsonb":
                return f"k{number}" + "x" * rng.choice((0, 0, 200))
            case "uuid":
                return str(uuid.UUID(int=number))
            case "date":
                return f"2024-01-{number % 28 + 1:02}"
            case "timestamp" | "timestamptz":
                return f"2024-01-01 00:00:{number:02}" + rng.choice(("", ".5"))
            case "time":
                return f"12:00:{number:02}"
            case "bytea":
                return f"\\x{number:02x}"
            case "bool":
                return rng.choice("tf")
            case "numeric":
                zeros = rng.choice(("", "0", "00"))
                return f"0.{number}{zeros}" if "5,5" in schema.types[index] else f"{number}.{zeros}".rstrip(".")
            case "int4[]" | "text[]" | "hstore" as nested:
                return (
                    f'"k"=>"{number}"'
                    if nested == "hstore"
                    else "{" + ",".join([str(number)] * rng.randint(1, 3)) + "}"
                )
            case _:
                return str(number)

    def row(self, schema: Schema) -> Row:
        return tuple(self.text(schema, index) for index in range(len(schema.types)))


@dataclass
class Workload:
    """Changes of one table as PostgreSQL would send them. ``rows`` is what the table holds; rows of the start are not in the stream."""

    faker: Faker
    schema: Schema
    key_of: Callable[[Row], object]  # two rows never have the same; without a key they may
    rows: list[Row] = field(default_factory=list)

    def start(self, count: int) -> None:
        for _ in range(count):
            self._add(self.faker.row(self.schema))

    def change(self) -> bytes:
        """The frame of one random change."""
        rng = self.faker.rng
        action = rng.choices(("insert", "update", "delete"), (4 if len(self.rows) < 5 else 1, 9, 1))[0]
        if action == "insert" or not self.rows:
            return self._insert()
        index = rng.randrange(len(self.rows))
        return self._delete(index) if action == "delete" else self._update(index)

    def _insert(self) -> bytes:
        row = self.faker.row(self.schema)
        return frame.insert(OID, row) if self._add(row) else frame.message("penstock", b"beat")

    def _add(self, row: Row) -> bool:
        if self.schema.plan.identity and self.key_of(row) in [self.key_of(each) for each in self.rows]:
            return False
        self.rows.append(row)
        return True

    def _delete(self, index: int) -> bytes:
        row = self.rows.pop(index)
        return frame.delete(OID, full=row) if self.schema.full else frame.delete(OID, key=self._key_tuple(row))

    def _update(self, index: int) -> bytes:
        plan, faker, old = self.schema.plan, self.faker, self.rows.pop(index)
        new = list(old)
        for column in range(len(new)):
            if faker.chance(0.25 if column in plan.identity else 0.4):
                new[column] = faker.text(self.schema, column)
        if not self._add(tuple(new)):
            new = list(old)
            self.rows.append(old)
        sent: list[Text] = list(new)
        for column, type_ in enumerate(self.schema.types):
            if type_ in TOASTED and new[column] is not None and new[column] == old[column] and faker.chance(0.7):
                sent[column] = LEFT_OUT
        if self.schema.full:
            return frame.update(OID, sent, full=old)
        changed = any(sent[column] != old[column] for column in plan.identity)  # also where it is left out
        return frame.update(OID, sent, key=self._key_tuple(old) if changed else None)

    def _key_tuple(self, row: Row) -> list[str | None]:
        return [text if index in self.schema.plan.identity else None for index, text in enumerate(row)]
