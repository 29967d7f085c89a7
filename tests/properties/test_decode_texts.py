"""A text changed at any place is refused by both decoders alike, or read as what it now says: never as something else."""

from __future__ import annotations

import importlib
import re
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests import traces
from tests.expected import Rules, quoted
from tests.fix_frames import IMPLEMENTATIONS
from tests.native_block import rows_of
from tests.plans import plan_of
from tests.properties.test_decode_truth import meant
from tests.sorts import Sort

from penstock.errors import BadDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = [importlib.import_module(name) for name in IMPLEMENTATIONS]
SAMPLES = {
    "int2": ["-32768", "7"],
    "int8": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["4294967295", "0"],
    "float4": ["-3.4028235e+38", "1e-45", "NaN", "-Infinity"],
    "float8": ["1.7976931348623157e+308", "-5e-324", "0.1", "Infinity"],
    "bool": ["t", "f"],
    "numeric(12,3)": ["-123456789.125", "0.001", "NaN"],
    "numeric": ["99999999999999999999999999999999999999.5", "-Infinity"],
    "bytea": ["\\x00ff", "\\x"],
    "uuid": ["c0ffee00-0000-4000-8000-00000000000f"],
    "date": ["2024-02-29", "9999-12-31", "0044-03-15 BC", "-infinity"],
    "timestamp": ["2024-02-29 23:59:59.999999", "0001-01-01 00:00:00 BC"],
    "timestamptz": ["2024-02-29 12:00:00.5+00", "2024-02-29 12:00:00-05:30:15"],
    "time": ["24:00:00", "23:59:59.000001"],
    "text": ["a\\b\t\n'\"{}é"],
    "int4[]": ["{1,NULL,-3}", "[0:1]={7,8}", "{}"],
    "text[]": ['{a,"b\\"c",NULL,"NULL"}', '{"","\\\\ ,{}"}'],
    "text[][]": ['{{a,b},{"c d",NULL}}', "[1:1][2:2]={{x}}"],
    "hstore": ['"a"=>"1", "b\\"c"=>NULL', '""=>"\\\\"', ""],
    "hstore[]": ['{"\\"a\\"=>\\"1\\"",NULL}'],
    "vector": ["[1,-2.5,3e-05]", "[NaN]"],
    "sparsevec": ["{1:0.5,3:-2}/5", "{}/3"],
    "vector[]": ['{"[1,2]","[3,4]"}'],
    "geometry": [
        "0101000020E6100000000000000000F03F0000000000000040",
        "00800000020000000140000000000000003FF00000000000004008000000000000",
        "01070000000100000001040000000200000001010000000000000000000000000000000000F03F0101000000000000000000F87F000000000000F87F",
    ],
}
ALPHABET = '019-+.e:,={}[]()"\\ /xXatfNUL>\0\x01é\t'
SORTS = {
    "int4[]": Sort("int4[]", "array", str, element=Sort("int4", "number", str), dimensions=1),  # type: ignore[arg-type]
    "text[]": Sort("text[]", "array", str, element=Sort("text", "text", str), dimensions=1),  # type: ignore[arg-type]
    "text[][]": Sort("text[][]", "array", str, element=Sort("text", "text", str), dimensions=2),  # type: ignore[arg-type]
    "hstore": Sort("hstore", "hstore", str),  # type: ignore[arg-type]
    "hstore[]": Sort("hstore[]", "array", str, element=Sort("hstore", "hstore", str), dimensions=1),  # type: ignore[arg-type]
}


def changed(text: str) -> Iterator[str]:
    """The text, and with a character too many, too few, or another at every place; its beginnings and ends."""
    yield text
    for place in range(len(text) + 1):
        yield text[:place]
        yield text[place:]
        yield text[:place] + text[place + 1 :]
        for other in ALPHABET:
            yield text[:place] + other + text[place:]
            yield text[:place] + other + text[place + 1 :]


@pytest.mark.parametrize("type_", SAMPLES)
def test_a_changed_text_is_refused_or_means_what_it_says(type_: str) -> None:
    plan = plan_of(f"id int4, v {type_}")
    accepted = []
    for text in dict.fromkeys(each for sample in SAMPLES[type_] for each in changed(sample)):
        first, *others = [said(module, plan.columns[1].codec, text.encode()) for module in MODULES]
        for other in others:
            assert other == first, f"{type_}: {text!r}"
        if not isinstance(first, str):
            accepted.append((text, first.unfit))
    lines = "".join(f"{number}\t{escaped(text)}\n" for number, (text, _) in enumerate(accepted)).encode()
    one, *more = [traces.of_copy(module, plan, [lines], (100_000, 1 << 30)) for module in MODULES]
    for each in more:
        assert each == one
    read = [row["v"] for row in rows_of(one[-1])]
    assert len(read) == len(accepted) >= len(SAMPLES[type_])
    for value, (text, unfit) in zip(read, accepted, strict=True):
        if not unfit:
            assert comparable(type_, value) == meaning(type_, text), f"{type_}: {text!r}"


def said(module: Any, codec: Any, text: bytes) -> Any:
    try:
        return module.encode(codec, text)
    except BadDataError as error:
        return error.message


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def comparable(type_: str, value: Any) -> Any:
    if type_ in SORTS:
        return shown(value)
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, list) and type_ != "vector[]":
        return [struct.pack("<f", each) for each in value]
    return None if type_ in ("geometry", "vector[]") else value


def shown(value: Any) -> str:
    """As ClickHouse shows a value."""
    match value:
        case None:
            return "NULL"
        case bytes():
            return quoted(value.decode(errors="surrogateescape"))
        case list():
            return "[" + ",".join(map(shown, value)) + "]"
        case dict():
            return "{" + ",".join(f"{shown(key)}:{shown(each)}" for key, each in value.items()) + "}"
        case _:
            return str(value)


def meaning(type_: str, text: str) -> Any:
    """What the text says, read by Python's own types, or by the rules of the four-way test."""
    match type_:
        case "int2" | "oid":
            return int(text)
        case "float4":
            return struct.pack("<d", struct.unpack("<f", struct.pack("<f", float(text)))[0])
        case "float8":
            return struct.pack("<d", float(text))
        case "date" | "timestamp" | "timestamptz":
            year, _, rest = text.partition("-")
            found = datetime.fromisoformat(f"{int(year):04}-{rest}")
            since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
            return since.days if type_ == "date" else since // timedelta(microseconds=1)
        case "time" if text.startswith("24:"):
            return 86_400_000_000
        case "vector" | "sparsevec":
            return [struct.pack("<f", each) for each in numbers(text)]
        case "geometry" | "vector[]":
            return None  # that the decoders agree is all that is asked
        case _ if type_ in SORTS:
            said = Rules("26.7").column(SORTS[type_], text, not_null=False).text or ""
            return re.sub(r"-?\d+", lambda found: str(int(found[0])), said) if type_ == "int4[]" else said
        case _:
            return meant(type_, text)


def numbers(text: str) -> list[float]:
    if text.startswith("["):
        return [float(each) for each in text[1:-1].split(",")]
    pairs, _, dimensions = text.rpartition("/")
    known = dict(each.split(":") for each in pairs[1:-1].split(",")) if pairs != "{}" else {}
    places = {int(place): float(value) for place, value in known.items()}
    return [places.get(place, 0.0) for place in range(1, int(dimensions) + 1)]
