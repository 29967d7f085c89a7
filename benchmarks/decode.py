"""``python -m benchmarks.decode``: how fast frames and COPY text become blocks, on one core, without any server.

Rows have ten columns: int8, int4, text, text, numeric(12,2), bool, timestamptz, date, uuid, float8. The compiled decoder, the
plain one, and a loop that only turns the texts into Python's own values meet the same bytes in turn; medians of the runs are shown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import struct
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.batch import Batch, Relation
from penstock.config import parse
from penstock.plan import Plan, compile_plan
from penstock.table import Column, ReplicaIdentity, Table, Type
from penstock.typemap import Capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

ROWS = 500_000
SLOW_ROWS = 20_000  # for what runs in Python
DISTINCT = 50_000  # rows made; they come again and again
BATCH_ROWS, BATCH_BYTES = 100_000, 64 << 20
CHUNK_BYTES = 4 << 20
OID = 16_384
COLUMNS = ("int8", "int4", "text", "text", "numeric", "bool", "timestamptz", "date", "uuid", "float8")
TWO_OF_TWELVE = (12 << 16 | 2) + 4  # numeric(12,2)
TEXT = 3  # the column that a partial update leaves out


@dataclass(frozen=True, slots=True)
class Case:
    """What is decoded: of ``partial_percent`` of the changes the text of one column is left out, unchanged."""

    name: str
    copy: bool = False
    partial_percent: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """Medians of the runs. ``ratio`` is the speed over the loop's in the same run."""

    case: str
    contender: str
    rows_per_second: float
    megabytes_per_second: float
    ratio: float


CASES = (
    Case("frames"),
    Case("frames, 10 % partial", partial_percent=10),
    Case("frames, 100 % partial", partial_percent=100),
    Case("COPY", copy=True),
)


def plan_of_ten_columns() -> Plan:
    """The plan that all contenders work for."""
    columns = tuple(
        Column(
            f"c{number}",
            number,
            Type(1, name, name, modifier=TWO_OF_TWELVE if name == "numeric" else -1),
            not_null=number == 1,
            may_be_unchanged=name == "text",
        )
        for number, name in enumerate(COLUMNS, start=1)
    )
    table = Table(OID, "public", "t", columns, ("c1",), ReplicaIdentity.DEFAULT, ("c1",))
    raw = {
        "pipe": {"name": "bench"},
        "source": {"dsn": "postgresql://db.example.com/bench"},
        "destination": {"dsn": "chdb:///tmp/bench"},
    }
    day = 86_400_000_000
    server = Capabilities("26.7", (-25_567, 120_529), (-719_162 * day, 2_932_897 * day - 1), time64=True)
    return compile_plan(table, parse(raw, origin="benchmark"), server)


def rows_of(count: int) -> Iterator[list[bytes]]:
    """Texts as PostgreSQL prints them; the same in every run."""
    rng = random.Random(1)
    for number in range(count):
        yield [
            text.encode()
            for text in (
                str(number),
                str(rng.randrange(-(10**6), 10**9)),
                f"name {rng.randrange(10**9)}",
                f"a somewhat longer text with a few words, {number}",
                f"{rng.randrange(10**7)}.{rng.randrange(100):02}",
                rng.choice("tf"),
                f"{datetime.fromtimestamp(rng.randrange(2**31))}.{rng.randrange(10**6):06}+00",
                str(date.fromordinal(rng.randrange(700_000, 740_000))),
                str(uuid.UUID(int=rng.getrandbits(128))),
                repr(rng.random() * 10 ** rng.randrange(5)),
            )
        ]


def frames_of(case: Case, rows: int) -> list[bytes]:
    """Chunks of whole frames: one transaction."""
    chunks = [_framed(b"B" + struct.pack(">QqI", 0x100, 0, 7))]
    size = 0
    pieces: list[bytes] = []
    made = [_change(case, number, row) for number, row in enumerate(rows_of(min(rows, DISTINCT)))]
    for number in range(rows):
        pieces.append(made[number % len(made)])
        size += len(pieces[-1])
        if size >= CHUNK_BYTES or number == rows - 1:
            chunks.append(b"".join(pieces))
            pieces, size = [], 0
    return [*chunks, _framed(b"C" + struct.pack(">BQQq", 0, 0x100, 0x110, 0))]


def _change(case: Case, number: int, row: list[bytes]) -> bytes:
    left_out = number % 100 >= 100 - case.partial_percent
    if left_out and case.partial_percent < 100:
        row = [b"%d" % (number - 50), *row[1:]]  # a row before it in the batch
    values = [
        b"u" if left_out and index == TEXT else b"t" + struct.pack(">I", len(text)) + text
        for index, text in enumerate(row)
    ]
    head = struct.pack(">cIcH", b"U" if left_out else b"I", OID, b"N", len(row))
    return _framed(head + b"".join(values))


def _framed(message: bytes) -> bytes:
    return struct.pack(">IcQQq", 25 + len(message), b"w", 0x200, 0x200, 0) + message


def copy_of(rows: int) -> list[bytes]:
    """Chunks of COPY text."""
    made = [b"\t".join(row) + b"\n" for row in rows_of(min(rows, DISTINCT))]
    text = b"".join(made[number % len(made)] for number in range(rows))
    return [text[start : start + CHUNK_BYTES] for start in range(0, len(text), CHUNK_BYTES)]


def decode_frames(module: ModuleType, plan: Plan, chunks: list[bytes]) -> int:
    """How many rows came out."""
    stream = module.StreamDecoder(BATCH_ROWS, BATCH_BYTES, ())
    names = b"".join(b"\0" + name.encode() + b"\0" + struct.pack(">Ii", 25, -1) for name in plan.column_names[:10])
    stream.receive(_framed(b"R" + struct.pack(">I", OID) + b"public\0t\0d" + struct.pack(">H", 10) + names))
    rows = 0
    for chunk in [b"", *chunks]:
        while (item := stream.next_item()) is not None:
            if isinstance(item, Relation):
                stream.bind(OID, plan, range(10), False)
            elif isinstance(item, Batch):
                rows += item.rows
        stream.receive(chunk)
    while (item := stream.next_item()) is not None:
        rows += item.rows
    rest = stream.take(OID)
    return rows + (rest.rows if rest else 0)


def decode_copy(module: ModuleType, plan: Plan, chunks: list[bytes]) -> int:
    """How many rows came out."""
    copy = module.CopyDecoder(plan, BATCH_ROWS, BATCH_BYTES, 1)
    rows = 0
    for chunk in chunks:
        copy.receive(chunk)
        if copy.full:
            rows += copy.take().rows
    copy.finish()
    rest = copy.take()
    return rows + (rest.rows if rest else 0)


READERS: tuple[Callable[[str], Any], ...] = (
    int,
    int,
    str,
    str,
    Decimal,
    "t".__eq__,
    datetime.fromisoformat,
    date.fromisoformat,
    uuid.UUID,
    float,
)


def loop_over_frames(_module: None, _plan: Plan, chunks: list[bytes]) -> int:
    """What a consumer in plain Python does at least: texts into Python's values, a list a row."""
    length, field = struct.Struct(">I").unpack_from, struct.Struct(">cI").unpack_from
    rows = []
    for chunk in chunks[1:-1]:
        place = 0
        while place < len(chunk):
            end = place + 4 + length(chunk, place)[0]
            place += 37
            row = []
            for reader in READERS:
                if chunk[place] == ord("u"):
                    place += 1
                    row.append(None)
                    continue
                _, size = field(chunk, place)
                row.append(reader(chunk[place + 5 : place + 5 + size].decode()))
                place += 5 + size
            rows.append(row)
            place = end
    return len(rows)


def loop_over_copy(_module: None, _plan: Plan, chunks: list[bytes]) -> int:
    """Likewise; that these texts hold no escapes is a gift to the loop."""
    lines = b"".join(chunks).decode().splitlines()
    return len([[reader(text) for reader, text in zip(READERS, line.split("\t"), strict=True)] for line in lines])


def contenders(case: Case) -> dict[str, tuple[Callable[[Plan, list[bytes]], int], int]]:
    """What runs, and over how many rows."""
    decode = decode_copy if case.copy else decode_frames
    loop = loop_over_copy if case.copy else loop_over_frames
    found: dict[str, tuple[Callable[[Plan, list[bytes]], int], int]] = {
        "loop": (partial(loop, None), SLOW_ROWS),
        "python": (partial(decode, importlib.import_module("penstock.decode.reference")), SLOW_ROWS),
    }
    try:
        found["native"] = (partial(decode, importlib.import_module("penstock.decode._native")), ROWS)
    except ImportError:
        print("the compiled decoder is not there", file=sys.stderr)
    return found


def measure(case: Case, runs: int) -> list[Result]:
    """All contenders in turn, ``runs`` times."""
    plan = plan_of_ten_columns()
    running = contenders(case)
    chunks = {rows: copy_of(rows) if case.copy else frames_of(case, rows) for rows in (SLOW_ROWS, ROWS)}
    speeds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(runs):
        for name, (run, rows) in running.items():
            began = time.perf_counter()
            decoded = run(plan, chunks[rows])
            speeds[name].append(rows / (time.perf_counter() - began))
            if decoded != rows:
                raise AssertionError(f"{name} made {decoded} rows of {rows}")
    return [
        Result(
            case.name,
            name,
            statistics.median(speeds[name]),
            statistics.median(speeds[name]) * sum(map(len, chunks[rows])) / rows / 1e6,
            statistics.median([own / loops for own, loops in zip(speeds[name], speeds["loop"], strict=True)]),
        )
        for name, (_, rows) in running.items()
    ]


def table(results: list[Result]) -> str:
    """For people."""
    lines = [f"{'':24}{'':8}{'rows/s':>12}{'MB/s':>8}{'× loop':>8}"]
    lines += [
        f"{each.case:24}{each.contender:8}{each.rows_per_second:12,.0f}{each.megabytes_per_second:8.0f}{each.ratio:8.1f}"
        for each in results
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure every case."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description="How fast the decoders are.")
    parser.add_argument("--runs", type=int, default=3, help="how often to measure each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options = parser.parse_args()
    results = [result for case in CASES for result in measure(case, options.runs)]
    print(table(results))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
