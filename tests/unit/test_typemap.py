"""Which ClickHouse type each PostgreSQL type becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.plans import SERVER, type_of

from penstock.errors import ConfigError, NotYetError
from penstock.table import Column, Type, TypeKind
from penstock.typemap import Kind, numeric_modifier, target_of


def column(sql: str) -> Column:
    return Column("c", 1, type_of(sql))


def modifier(precision: int, scale: int) -> int:
    """As numeric.c packs it: make_numeric_typmod."""
    return ((precision << 16) | (scale & 0x7FF)) + 4


@pytest.mark.parametrize(
    ("precision", "scale"), [(1, 0), (10, 2), (76, 38), (1000, 1000), (1000, -1000), (3, 5), (2, -3), (5, -1)]
)
def test_numeric_modifiers(precision: int, scale: int) -> None:
    assert numeric_modifier(modifier(precision, scale)) == (precision, scale)


def test_a_numeric_without_modifier() -> None:
    assert numeric_modifier(-1) is None


@pytest.mark.parametrize(
    ("sql", "clickhouse", "width"),
    [
        ("numeric(9,2)", "Decimal(9, 2)", 4),
        ("numeric(10,0)", "Decimal(10, 0)", 8),
        ("numeric(18,18)", "Decimal(18, 18)", 8),
        ("numeric(38,10)", "Decimal(38, 10)", 16),
        ("numeric(76,38)", "Decimal(76, 38)", 32),
        ("numeric(2,-3)", "Decimal(5, 0)", 4),
        ("numeric(3,5)", "Decimal(5, 5)", 4),
        ("numeric", "Decimal(76, 38)", 32),
    ],
)
def test_numerics(sql: str, clickhouse: str, width: int) -> None:
    target = target_of(column(sql), SERVER)
    assert (target.clickhouse, target.wire, target.codec.kind) == (clickhouse, clickhouse, Kind.DECIMAL)
    assert target.codec.width == width
    assert target.always_nullable


@pytest.mark.parametrize("sql", ["numeric(77,0)", "numeric(1000,500)", "numeric(70,-7)", "numeric(10,77)"])
def test_numerics_beyond_76_digits_are_text(sql: str) -> None:
    assert target_of(column(sql), SERVER).clickhouse == "String"


@pytest.mark.parametrize(
    ("sql", "clickhouse", "kind"),
    [
        ("int2", "Int16", Kind.INT16),
        ("int4", "Int32", Kind.INT32),
        ("int8", "Int64", Kind.INT64),
        ("oid", "UInt32", Kind.UINT32),
        ("float4", "Float32", Kind.FLOAT32),
        ("float8", "Float64", Kind.FLOAT64),
        ("bool", "Bool", Kind.BOOL),
        ("text", "String", Kind.STRING),
        ("jsonb", "String", Kind.STRING),
        ("int4range", "String", Kind.STRING),
        ("nobody_knows", "String", Kind.STRING),
        ("bytea", "String", Kind.BYTEA),
        ("uuid", "UUID", Kind.UUID),
        ("date", "Date32", Kind.DATE32),
        ("timestamp", "DateTime64(6)", Kind.DATETIME64),
        ("timestamptz", "DateTime64(6, 'UTC')", Kind.DATETIME64),
        ("time", "Time64(6)", Kind.TIME64),
        ("timetz", "String", Kind.STRING),
        ("enum", "LowCardinality(String)", Kind.STRING),
    ],
)
def test_types(sql: str, clickhouse: str, kind: Kind) -> None:
    target = target_of(column(sql), SERVER)
    assert (target.clickhouse, target.codec.kind) == (clickhouse, kind)


def test_the_servers_range_bounds_dates() -> None:
    for sql, (low, high) in (
        ("date", SERVER.date32),
        ("timestamp", SERVER.datetime64),
        ("timestamptz", SERVER.datetime64),
    ):
        codec = target_of(column(sql), SERVER).codec
        assert (codec.minimum, codec.maximum) == (low, high)


def test_a_server_without_time64_gets_text() -> None:
    assert target_of(column("time"), replace(SERVER, time64=False)).clickhouse == "String"


def test_a_domain_is_its_base_type() -> None:
    money = Type(2, "money_amount", "money_amount", TypeKind.DOMAIN, inner=type_of("numeric(10,2)"))
    nested = Type(3, "price", "price", TypeKind.DOMAIN, inner=money)
    assert target_of(Column("c", 1, nested), SERVER).clickhouse == "Decimal(10, 2)"


def test_overrides() -> None:
    for asked in ("String", "LowCardinality(String)"):
        target = target_of(column("numeric"), SERVER, asked)
        assert (target.clickhouse, target.wire, target.codec.kind) == (asked, "String", Kind.STRING)
    with pytest.raises(NotYetError, match="Int128"):
        target_of(column("numeric"), SERVER, "Int128")
    with pytest.raises(ConfigError, match='"c"'):
        target_of(column("numeric"), SERVER, " ")
