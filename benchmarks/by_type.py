"""How fast each type is decoded: COPY text of ten columns of it becomes the body of an insert, without any server.

CPU time of one thread counts, and the best of several runs: other programs on the machine cost a codec little.
"""

from __future__ import annotations

import importlib
import random
import struct
import time
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from tests.plans import plan_of

from benchmarks.report import Figures, Target, note, number, table
from benchmarks.stage import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    from benchmarks.stage import Stage

GROUP = "types"
COLUMNS = 10
WANTED_VALUES_PER_SECOND, WANTED_MEGABYTES_PER_SECOND = 5_000_000, 100
ROWS, MOST_BYTES, QUICK_PART = 100_000, 32 << 20, 20  # of a run; a quick one takes a twentieth
REPEATS = 5
DISTINCT = 5000  # values made; they come again and again
CHUNK_BYTES = 1 << 16
IMPLEMENTATIONS = {"native": "penstock.decode._native", "python": "penstock.decode.reference"}
SLOW_PART = 50  # the plain decoder takes so much less


class Case(NamedTuple):
    """A type, what its values are like, and one of them as PostgreSQL prints it."""

    name: str
    sql: str
    text: Callable[[random.Random], str]


def measure(stage: Stage) -> None:
    """Every codec, compiled and plain."""
    for case in CASES:
        for contender, module in IMPLEMENTATIONS.items():
            part = (QUICK_PART if stage.scale.name == "quick" else 1) * (SLOW_PART if contender == "python" else 1)
            stage.keep(measured(case, contender, module, part))


def measured(case: Case, contender: str, module: str, part: int) -> Sample:
    """One codec."""
    try:
        decoder = importlib.import_module(module)
    except ImportError:
        return Sample(GROUP, case.name, contender, 1, error="the compiled decoder is not there")
    chunks = list(_chunks(case, part))
    rows = sum(chunk.count(b"\n") for chunk in chunks)
    seconds = min(_seconds(decoder, case, chunks, rows) for _ in range(REPEATS))
    more = {"megabytes_per_second": round(sum(map(len, chunks)) / seconds / 1e6, 1)}
    return Sample(GROUP, case.name, contender, 1, rows * COLUMNS, seconds, more)


def _seconds(decoder: ModuleType, case: Case, chunks: list[bytes], rows: int) -> float:
    plan = plan_of(f"id int4, {', '.join(f'c{place} {case.sql}' for place in range(COLUMNS))}")
    began = time.thread_time()
    copy = decoder.CopyDecoder(plan, 1_000_000, 1 << 30, 1)
    for chunk in chunks:
        copy.receive(chunk)
    copy.finish()
    batch = copy.take()
    for _ in batch.chunks():
        pass
    seconds = time.thread_time() - began
    if batch.rows != rows:
        raise AssertionError(f"{case.name}: {batch.rows} rows of {rows}")
    return seconds


def _chunks(case: Case, part: int) -> Iterator[bytes]:
    """COPY text, the same in every run."""
    rng = random.Random(case.name)
    values = [case.text(rng).replace("\\", "\\\\").encode() for _ in range(DISTINCT // part + COLUMNS)]
    text = bytearray()
    size = 0
    for row in range(ROWS // part):
        text += b"%d" % row
        for place in range(COLUMNS):
            text += b"\t" + values[(row * COLUMNS + place) % len(values)]
        text += b"\n"
        if len(text) >= CHUNK_BYTES:
            yield bytes(text)
            size += len(text)
            text.clear()
            if size >= MOST_BYTES // part:
                return
    yield bytes(text)


def report(samples: Iterable[Sample]) -> str:
    """The table."""
    figures = Figures(samples, GROUP)

    def line(case: str) -> tuple[str, ...]:
        shown = [
            each
            for contender in IMPLEMENTATIONS
            for each in (
                number(figures.rate(case, contender)),
                number(figures.more(case, contender, "megabytes_per_second")),
            )
        ]
        return case, next(each.sql for each in CASES if each.name == case), *shown

    heads = ("values", "type", "native values/s", "native MB/s", "python values/s", "python MB/s")
    return table(heads, [line(case) for case in figures.cases])


def targets(samples: Iterable[Sample]) -> list[Target]:
    """No codec is slow by both measures."""
    figures = Figures(samples, GROUP)
    found = []
    for case in figures.cases:
        name, rate = f"types, {case}", figures.rate(case, "native") or 0
        speed = figures.more(case, "native", "megabytes_per_second") or 0
        reached = rate >= WANTED_VALUES_PER_SECOND or speed >= WANTED_MEGABYTES_PER_SECOND
        wanted = f"≥ {WANTED_VALUES_PER_SECOND:,} values/s or {WANTED_MEGABYTES_PER_SECOND} MB/s"
        found.append(Target(name, wanted, f"{rate:,.0f} values/s, {speed:,.0f} MB/s", reached, note(name)))
    return found


def _moment(rng: random.Random) -> datetime:
    return datetime(1970, 1, 1) + timedelta(microseconds=rng.randrange(60 * 366 * 86_400_000_000))


def _words(rng: random.Random, length: int) -> str:
    return "".join(rng.choices("abcdefgh ijklmnop é", k=length))


def _array(element: Callable[[random.Random], str], count: int) -> Callable[[random.Random], str]:
    return lambda rng: "{" + ",".join(element(rng) for _ in range(count)) + "}"


def _integer(rng: random.Random) -> str:
    return str(rng.randrange(-(10**9), 10**9))


def _floats(rng: random.Random, count: int) -> str:
    return ",".join(f"{rng.uniform(-1, 1):.7g}" for _ in range(count))


def _line(rng: random.Random, points: int) -> str:
    """EWKB of a line; of one point: of that point."""
    numbers = [rng.uniform(-90, 90) for _ in range(2 * points)]
    kind = struct.pack("<BII", 1, (1 if points == 1 else 2) | 0x2000_0000, 4326)
    count = b"" if points == 1 else struct.pack("<I", points)
    return (kind + count + struct.pack(f"<{2 * points}d", *numbers)).hex().upper()


CASES = (
    Case("smallint", "int2", lambda rng: str(rng.randrange(-(2**15), 2**15))),
    Case("integer", "int4", _integer),
    Case("bigint", "int8", lambda rng: str(rng.randrange(-(2**63), 2**63))),
    Case("oid", "oid", lambda rng: str(rng.randrange(2**32))),
    Case("real", "float4", lambda rng: f"{rng.uniform(-1e6, 1e6):.8g}"),
    Case("double precision, 17 digits", "float8", lambda rng: repr(rng.random() * 10 ** rng.randrange(-20, 20))),
    Case("boolean", "bool", lambda rng: rng.choice("tf")),
    Case("numeric, 12 digits", "numeric(12,2)", lambda rng: f"{rng.randrange(10**9)}.{rng.randrange(100):02}"),
    Case("numeric, 38 digits", "numeric(38,10)", lambda rng: f"{rng.randrange(10**28)}.{rng.randrange(10**10):010}"),
    Case("numeric, not declared", "numeric", lambda rng: f"{rng.randrange(10**9)}.{rng.randrange(10**6):06}"),
    Case("text, 20 letters", "text", lambda rng: _words(rng, 20)),
    Case("text, 1000 letters", "text", lambda rng: _words(rng, 1000)),
    Case("bytea, 16 bytes", "bytea", lambda rng: "\\x" + rng.randbytes(16).hex()),
    Case("bytea, 1000 bytes", "bytea", lambda rng: "\\x" + rng.randbytes(1000).hex()),
    Case("uuid", "uuid", lambda rng: str(uuid.UUID(int=rng.getrandbits(128)))),
    Case("date", "date", lambda rng: f"{_moment(rng):%Y-%m-%d}"),
    Case("timestamp", "timestamp", lambda rng: str(_moment(rng))),
    Case("timestamptz", "timestamptz", lambda rng: f"{_moment(rng)}+00"),
    Case("time", "time", lambda rng: f"{_moment(rng):%H:%M:%S.%f}"),
    Case(
        "jsonb, 60 letters",
        "jsonb",
        lambda rng: f'{{"id": {_integer(rng)}, "name": "{_words(rng, 20)}", "tags": [1, 2]}}',
    ),
    Case("enum", "enum", lambda rng: rng.choice(("happy", "sad"))),
    Case("hstore, 3 pairs", "hstore", lambda rng: ", ".join(f'"key{place}"=>"{_words(rng, 8)}"' for place in range(3))),
    Case("integer[], 10", "int4[]", _array(_integer, 10)),
    Case("integer[][], 5 of 2", "int4[][]", _array(_array(_integer, 2), 5)),
    Case("text[], 5 of 10 letters", "text[]", _array(lambda rng: f'"{_words(rng, 10)}"', 5)),
    Case("numeric[], 5", "numeric(12,2)[]", _array(lambda rng: f"{rng.randrange(10**9)}.{rng.randrange(100):02}", 5)),
    Case("timestamptz[], 5", "timestamptz[]", _array(lambda rng: f'"{_moment(rng)}+00"', 5)),
    Case("vector, 16", "vector", lambda rng: f"[{_floats(rng, 16)}]"),
    Case("vector, 1536", "vector", lambda rng: f"[{_floats(rng, 1536)}]"),
    Case(
        "sparsevec, 8 of 1000",
        "sparsevec",
        lambda rng: "{" + ",".join(f"{place * 100 + 1}:0.5" for place in range(8)) + "}/1000",
    ),
    Case("geometry, a point", "geometry", lambda rng: _line(rng, 1)),
    Case("geometry, a line of 50", "geometry", lambda rng: _line(rng, 50)),
)
