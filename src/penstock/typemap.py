"""Where PostgreSQL's types and ClickHouse's meet, as data: one row a PostgreSQL type.

The rows drive decoding, DDL, the docs' type table and the round-trip tests. A codec turns PostgreSQL's text form
(session settings of ``postgres/connection.py``) into the bytes of a ClickHouse Native column.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from penstock.errors import ConfigError, NotYetError

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


@dataclass(frozen=True, slots=True)
class Codec:
    """One codec with its parameters: what a decoder needs to know of a column's type.

    ``minimum`` and ``maximum`` bound the encoded integer of DATE32 and DATETIME64: the server's range.
    ``precision`` and ``scale`` are DECIMAL's; a text with more digits than fit is unfit, never rounded.
    """

    kind: Kind
    width: int  # bytes a value in the Native column; 0 where it varies
    precision: int = 0
    scale: int = 0
    minimum: int = 0
    maximum: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """What a column becomes: its codec, its ClickHouse type, and the type its Native block announces (without Nullable)."""

    codec: Codec
    clickhouse: str
    wire: str
    always_nullable: bool = False  # some values cannot be held: NULL must be possible
    unfit: str = ""  # which values cannot be held, for people


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a ClickHouse server can hold, asked once at the start (``clickhouse/capabilities.py``)."""

    version: str
    date32: tuple[int, int]  # first and last day, days since 1970-01-01
    datetime64: tuple[int, int]  # first and last microsecond since 1970-01-01
    time64: bool
    embedded: bool = False


def _decimal_width(precision: int) -> int:
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


def _numeric(type_: Type, _server: Capabilities) -> Target:
    declared = numeric_modifier(type_.modifier)
    if declared is None:
        digits, scale = NUMERIC_UNLIMITED
        return _decimal(digits, scale, "more than 38 digits before or after the point, NaN, ±Infinity")
    precision, scale = declared
    digits, scale = (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)
    if digits > MOST_DIGITS:
        return AS_TEXT
    return _decimal(digits, scale, "NaN")


def _decimal(precision: int, scale: int, unfit: str) -> Target:
    codec = Codec(Kind.DECIMAL, _decimal_width(precision), precision=precision, scale=scale)
    name = f"Decimal({precision}, {scale})"
    return Target(codec, name, name, always_nullable=True, unfit=unfit)


def _date(_type: Type, server: Capabilities) -> Target:
    low, high = server.date32
    return Target(
        Codec(Kind.DATE32, 4, minimum=low, maximum=high),
        "Date32",
        "Date32",
        unfit="dates outside the server's range, ±infinity",
    )


def _timestamp(name: str) -> Callable[[Type, Capabilities], Target]:
    def build(_type: Type, server: Capabilities) -> Target:
        low, high = server.datetime64
        codec = Codec(Kind.DATETIME64, 8, minimum=low, maximum=high)
        return Target(codec, name, name, unfit="times outside the server's range, ±infinity")

    return build


def _time(_type: Type, server: Capabilities) -> Target:
    return Target(Codec(Kind.TIME64, 8), "Time64(6)", "Time64(6)") if server.time64 else AS_TEXT


def _fixed(kind: Kind, width: int, name: str) -> Target:
    return Target(Codec(kind, width), name, name)


ROWS: dict[str, Target | Callable[[Type, Capabilities], Target]] = {
    "int2": _fixed(Kind.INT16, 2, "Int16"),
    "int4": _fixed(Kind.INT32, 4, "Int32"),
    "int8": _fixed(Kind.INT64, 8, "Int64"),
    "oid": _fixed(Kind.UINT32, 4, "UInt32"),
    "xid": _fixed(Kind.UINT32, 4, "UInt32"),
    "float4": _fixed(Kind.FLOAT32, 4, "Float32"),
    "float8": _fixed(Kind.FLOAT64, 8, "Float64"),
    "bool": _fixed(Kind.BOOL, 1, "Bool"),
    "numeric": _numeric,
    "bytea": Target(Codec(Kind.BYTEA, 0), "String", "String"),
    "uuid": _fixed(Kind.UUID, 16, "UUID"),
    "date": _date,
    "timestamp": _timestamp("DateTime64(6)"),
    "timestamptz": _timestamp("DateTime64(6, 'UTC')"),
    "time": _time,
}
"""Types that have a codec of their own, by pg_type.typname. Everything else is PostgreSQL's text in a String."""

ENUM = Target(_STRING, "LowCardinality(String)", "String")


def target_of(column: Column, server: Capabilities, override: str = "") -> Target:
    """What ``column`` becomes on ``server``; ``override`` is the ClickHouse type the configuration asks for.

    Raises ConfigError or NotYetError for an override that is not possible.
    """
    if override:
        return _overridden(column, override)
    base = column.type.base
    if base.kind.value == "enum":
        return ENUM
    rule = ROWS.get(base.name, AS_TEXT)
    return rule if isinstance(rule, Target) else rule(base, server)


def _overridden(column: Column, override: str) -> Target:
    if override in ("String", "LowCardinality(String)"):
        return Target(_STRING, override, "String")
    if not override.strip():
        raise ConfigError(
            f'types: the type for column "{column.name}" is empty', hint='Write a ClickHouse type, such as "String".'
        )
    raise NotYetError(
        f'types: column "{column.name}" asks for {override}, and only "String" and "LowCardinality(String)" are possible so far',
        hint="Leave the line out to get the type of the type map.",
    )
