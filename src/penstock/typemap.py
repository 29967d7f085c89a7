"""Where PostgreSQL's types and ClickHouse's meet, as data: one row a PostgreSQL type.

The rows drive decoding, DDL, the docs' type table and the round-trip tests. A codec turns PostgreSQL's text form
(session settings of ``postgres/connection.py``) into the bytes of a ClickHouse Native column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

from penstock.table import TypeKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.table import Column, Type


class Kind(IntEnum):
    """How a codec reads the text and what it writes. The numbers are shared with the compiled decoder."""

    INT16 = 1
    INT32 = 2
    INT64 = 3
    UINT32 = 4
    FLOAT32 = 5
    FLOAT64 = 6
    BOOL = 7  # one byte, 0 or 1
    DECIMAL = 8  # little-endian two's complement of `width` bytes, value × 10^scale
    STRING = 9  # varint length, then the text as it is
    BYTEA = 10  # varint length, then the raw bytes of PostgreSQL's \x hex
    UUID = 11  # two little-endian UInt64: high half, low half
    DATE32 = 12  # Int32, days since 1970-01-01
    DATETIME64 = 13  # Int64, microseconds since 1970-01-01 UTC; text with or without +00
    TIME64 = 14  # Int64, microseconds since midnight
    HEX = 15  # as STRING: the digits of PostgreSQL's \x hex
    BASE64 = 16  # as STRING: base64 of the bytes
    JSON = 17  # as STRING: what is no object is unfit
    GEOMETRY = 18  # as STRING: WKT with SRID of PostGIS's hex EWKB
    ARRAY = 19  # a cell of `dimensions` levels of lists, see below
    MAP = 20  # a cell of pairs: hstore
    VECTOR = 21  # a cell of Float32: pgvector's dense and sparse vectors


NESTED = frozenset({Kind.ARRAY, Kind.MAP, Kind.VECTOR})
"""Their cells hold other values: a varint length, then as many bytes; nothing at all (length 0) stands for empty.

The bytes are a list: its length as UInt32, then the elements. An element of ARRAY is a list for all but the last dimension, then one byte
(1 = NULL) where it is ``element_nullable``, and its value; of MAP a STRING, one byte (1 = NULL) and a STRING; of VECTOR a Float32.
``decode/spread.py`` makes Native columns of cells.
"""


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec with its parameters: what a decoder needs to know of a column's type.

    ``minimum`` and ``maximum`` bound the encoded integer of DATE32 and DATETIME64: the server's range.
    ``precision`` and ``scale`` are DECIMAL's; a text with more digits than fit is unfit, never rounded.
    The rest is ARRAY's. An array of other ``dimensions`` is unfit.
    """

    kind: Kind
    width: int  # bytes a value in the Native column; 0 where it varies
    precision: int = 0
    scale: int = 0
    minimum: int = 0
    maximum: int = 0
    dimensions: int = 0
    delimiter: str = ","
    element: Codec | None = None

    @property
    def nested(self) -> bool:
        """Whether its cells hold other values."""
        return self.kind in NESTED

    @property
    def element_nullable(self) -> bool:
        """Whether ClickHouse has a NULL for an array's elements: not for arrays and maps."""
        return self.element is not None and not self.element.nested


_ZEROS: dict[Kind, str] = {
    **dict.fromkeys((Kind.INT16, Kind.INT32, Kind.INT64, Kind.UINT32, Kind.FLOAT32, Kind.FLOAT64, Kind.DECIMAL), "0"),
    Kind.BOOL: "false",
    Kind.UUID: "00000000-0000-0000-0000-000000000000",
    Kind.DATE32: "1970-01-01",
    Kind.DATETIME64: "1970-01-01 00:00:00.000000",
    Kind.TIME64: "00:00:00.000000",
    Kind.JSON: "{}",
    Kind.ARRAY: "[]",
    Kind.MAP: "{}",
    Kind.VECTOR: "[]",
}
"""The others are an empty text."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a column becomes: its codec, its ClickHouse type, and the type its Native block announces (without Nullable)."""

    codec: Codec
    clickhouse: str
    wire: str
    always_nullable: bool = False  # some values cannot be held: NULL must be possible
    unfit: str = ""  # which values cannot be held, for people

    @property
    def zero(self) -> str:
        """What stands for NULL where the column has none, as ClickHouse prints it."""
        return _ZEROS.get(self.codec.kind, "")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a ClickHouse server can hold, asked once at the start (``clickhouse/capabilities.py``)."""

    version: str
    date32: tuple[int, int]  # first and last day, days since 1970-01-01
    datetime64: tuple[int, int]  # first and last microsecond since 1970-01-01
    time64: bool
    json: bool = False  # the type JSON, also Nullable, without a setting; and it says which values it refuses
    embedded: bool = False
    utc: bool = True  # its time zone: what a DateTime64 without one of its own is shown in


@dataclass(frozen=True, slots=True)
class Forms:
    """In which form the pipe wants values for which there is more than one."""

    bytea: str = "raw"  # raw | hex | base64
    json: str = "string"  # string | json


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the map. ``names`` are pg_type.typname; of what has none they are for people.

    ``range`` says which values arrive as they are; ``example`` is a value in PostgreSQL's text.
    """

    names: tuple[str, ...]
    target: Target | Callable[[Type, Capabilities, Forms], Target]
    range: str
    example: str

    def of(self, type_: Type, server: Capabilities, forms: Forms) -> Target:
        """The target of one type of this row."""
        return self.target if isinstance(self.target, Target) else self.target(type_, server, forms)


def decimal_width(precision: int) -> int:
    """Bytes of a Decimal."""
    return 4 if precision <= 9 else 8 if precision <= 18 else 16 if precision <= 38 else 32


_STRING = Codec(Kind.STRING, 0)
AS_TEXT = Target(_STRING, "String", "String")
NUMERIC_UNLIMITED = (76, 38)
MOST_DIGITS = 76


def numeric_modifier(modifier: int) -> tuple[int, int] | None:
    """Precision and scale of a numeric's atttypmod, None when it has none (PostgreSQL source: numeric.c, numerictypmodin)."""
    if modifier < 4:
        return None
    packed = modifier - 4
    return packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024


def numeric_digits(type_: Type) -> tuple[int, int] | None:
    """Precision and scale of the Decimal that holds every value of a declared numeric; None for one without a declaration."""
    declared = numeric_modifier(type_.modifier)
    if declared is None:
        return None
    precision, scale = declared
    return (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)


def _numeric(type_: Type, _server: Capabilities, _forms: Forms) -> Target:
    digits = numeric_digits(type_)
    if digits is None:
        return decimal(*NUMERIC_UNLIMITED, "more than 38 digits before or after the point, NaN, ±Infinity")
    return AS_TEXT if digits[0] > MOST_DIGITS else decimal(*digits, "NaN")


def decimal(precision: int, scale: int, unfit: str) -> Target:
    """A Decimal."""
    codec = Codec(Kind.DECIMAL, decimal_width(precision), precision=precision, scale=scale)
    name = f"Decimal({precision}, {scale})"
    return Target(codec, name, name, always_nullable=True, unfit=unfit)


def _date(_type: Type, server: Capabilities, _forms: Forms) -> Target:
    low, high = server.date32
    codec = Codec(Kind.DATE32, 4, minimum=low, maximum=high)
    return Target(codec, "Date32", "Date32", unfit="dates outside the server's range, BC, ±infinity: the nearest bound")


_IN_UTC = "DateTime64(6, 'UTC')"


def _timestamp(name: str) -> Callable[[Type, Capabilities, Forms], Target]:
    def build(_type: Type, server: Capabilities, _forms: Forms) -> Target:
        low, high = server.datetime64
        codec = Codec(Kind.DATETIME64, 8, minimum=low, maximum=high)
        shown = name if server.utc else _IN_UTC
        return Target(codec, shown, shown, unfit="times outside the server's range, BC, ±infinity: the nearest bound")

    return build


def _time(_type: Type, server: Capabilities, _forms: Forms) -> Target:
    return Target(Codec(Kind.TIME64, 8), "Time64(6)", "Time64(6)") if server.time64 else AS_TEXT


def _bytea(_type: Type, _server: Capabilities, forms: Forms) -> Target:
    kind = {"raw": Kind.BYTEA, "hex": Kind.HEX, "base64": Kind.BASE64}[forms.bytea]
    return Target(Codec(kind, 0), "String", "String")


def _json(_type: Type, server: Capabilities, forms: Forms) -> Target:
    return JSON if forms.json == "json" and server.json else AS_TEXT


def _fixed(kind: Kind, width: int, name: str) -> Target:
    return Target(Codec(kind, width), name, name)


JSON = Target(
    Codec(Kind.JSON, 0),
    "JSON",
    "String",
    always_nullable=True,
    unfit="what is no object, and what the JSON type refuses",
)
ENUM = Target(_STRING, "LowCardinality(String)", "String")
_MAP = "Map(String, Nullable(String))"
_VECTOR = Target(Codec(Kind.VECTOR, 0), "Array(Float32)", "Array(Float32)", unfit="NULL: empty")
_SPARSE = Target(
    Codec(Kind.VECTOR, 0), "Array(Float32)", "Array(Float32)", unfit="more than 1,048,576 dimensions, NULL: empty"
)
_GEOMETRY = Target(Codec(Kind.GEOMETRY, 0), "String", "String")
_YEARS = "the server's: the years 1900 to 2299, newer ones 1 to 9999"

ROWS: tuple[Row, ...] = (
    Row(("int2",), _fixed(Kind.INT16, 2, "Int16"), "all", "-32768"),
    Row(("int4",), _fixed(Kind.INT32, 4, "Int32"), "all", "2147483647"),
    Row(("int8",), _fixed(Kind.INT64, 8, "Int64"), "all", "9223372036854775807"),
    Row(("oid", "xid"), _fixed(Kind.UINT32, 4, "UInt32"), "all", "4294967295"),
    Row(("float4",), _fixed(Kind.FLOAT32, 4, "Float32"), "all, NaN and ±Infinity as such", "1e-45"),
    Row(("float8",), _fixed(Kind.FLOAT64, 8, "Float64"), "all, NaN and ±Infinity as such", "0.1"),
    Row(("bool",), _fixed(Kind.BOOL, 1, "Bool"), "all", "t"),
    Row(("numeric",), _numeric, "all declared digits; without a declaration 38 before and 38 after the point", "1.50"),
    Row(("bytea",), _bytea, "all", "\\x00ff"),
    Row(("uuid",), _fixed(Kind.UUID, 16, "UUID"), "all", "c0ffee00-0000-4000-8000-000000000001"),
    Row(("date",), _date, _YEARS, "2024-02-29"),
    Row(("timestamp",), _timestamp("DateTime64(6)"), _YEARS, "2024-02-29 12:00:00.5"),
    Row(("timestamptz",), _timestamp(_IN_UTC), _YEARS, "2024-02-29 12:00:00.5+00"),
    Row(("time",), _time, "all, 24:00:00 too", "23:59:59.999999"),
    Row(("json", "jsonb"), _json, "all, byte for byte", '{"a": [1, 2.50]}'),
    Row(("hstore",), Target(Codec(Kind.MAP, 0), _MAP, _MAP, unfit="NULL: empty"), "all", '"a"=>"1", "b"=>NULL'),
    Row(("vector", "halfvec"), _VECTOR, "all", "[1,2.5,3]"),
    Row(("sparsevec",), _SPARSE, "all, expanded", "{1:0.5,3:2}/5"),
    Row(("geometry", "geography"), _GEOMETRY, "all, as WKT with SRID", "SRID=4326;POINT (1 2)"),
)
"""Types that have a codec of their own. Everything else is PostgreSQL's text in a String."""

_BY_NAME = {name: row for row in ROWS for name in row.names}
TEXTS: tuple[Row, ...] = (
    Row(("text", "varchar", "char(n)", "name", "citext", "xml", '"char"'), AS_TEXT, "all, any byte", "it's 🐘"),
    Row(("interval (ISO 8601)", "timetz"), AS_TEXT, "all, PostgreSQL's text", "P1Y2M3DT4H5M6.7S"),
    Row(("inet", "cidr", "macaddr", "macaddr8", "pg_lsn", "money", "bit", "varbit"), AS_TEXT, "all", "10.0.0.1/8"),
    Row(("tsvector", "tsquery", "ltree", "reg*"), AS_TEXT, "all", "'fat':2 'rat':3"),
    Row(("point", "line", "lseg", "box", "path", "polygon", "circle"), AS_TEXT, "all digits", "(1,2)"),
    Row(("ranges", "multiranges", "composites", "anything unknown"), AS_TEXT, "all", "[1,10)"),
)
"""What is text, for people: the map itself takes every type for text that has no row above."""


def target_of(column: Column, server: Capabilities, forms: Forms) -> Target:
    """What ``column`` becomes on ``server``."""
    base = column.type.base
    return _array(column, server, forms) if base.kind is TypeKind.ARRAY else scalar_target(base, server, forms)


def scalar_target(base: Type, server: Capabilities, forms: Forms) -> Target:
    """What a type without dimensions becomes."""
    if base.kind is TypeKind.ENUM:
        return ENUM
    row = _BY_NAME.get(base.name) if base.kind is TypeKind.BASE else None
    return row.of(base, server, forms) if row else AS_TEXT


def _array(column: Column, server: Capabilities, forms: Forms) -> Target:
    element = column.type.base.inner
    if (
        element is None or element.base.kind is TypeKind.ARRAY
    ):  # of a domain over arrays: there is one level of text more
        return array_of(AS_TEXT, column)
    return array_of(scalar_target(element.base, server, replace(forms, json="string")), column)


def array_of(element: Target, column: Column) -> Target:
    """An array of the declared dimensions."""
    inner = column.type.base.inner
    dimensions = max(1, column.dimensions)
    codec = Codec(
        Kind.ARRAY, 0, dimensions=dimensions, delimiter=inner.delimiter if inner else ",", element=element.codec
    )

    def named(type_: str) -> str:
        inside = type_ if element.codec.nested else with_null(type_)
        return "Array(" * dimensions + inside + ")" * dimensions

    unfit = "; ".join(filter(None, ("other dimensions than declared, NULL: empty", element.unfit)))
    return Target(codec, named(element.clickhouse), named(element.wire), unfit=unfit)


def with_null(type_: str) -> str:
    """The Nullable of a type."""
    if type_.startswith("LowCardinality("):
        return f"LowCardinality(Nullable({type_.removeprefix('LowCardinality(')[:-1]}))"
    return f"Nullable({type_})"
