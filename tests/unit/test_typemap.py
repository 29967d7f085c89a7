"""Which ClickHouse type each PostgreSQL type becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.plans import SERVER, type_of

from penstock.decode.codecs import encode
from penstock.errors import ConfigError
from penstock.override import overridden
from penstock.table import Column, Type, TypeKind
from penstock.typemap import ROWS, TEXTS, Forms, Kind, numeric_modifier, target_of


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
    target = target_of(column(sql), SERVER, Forms())
    assert (target.clickhouse, target.wire, target.codec.kind) == (clickhouse, clickhouse, Kind.DECIMAL)
    assert target.codec.width == width
    assert target.always_nullable


@pytest.mark.parametrize("sql", ["numeric(77,0)", "numeric(1000,500)", "numeric(70,-7)", "numeric(10,77)"])
def test_numerics_beyond_76_digits_are_text(sql: str) -> None:
    assert target_of(column(sql), SERVER, Forms()).clickhouse == "String"


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
    target = target_of(column(sql), SERVER, Forms())
    assert (target.clickhouse, target.codec.kind) == (clickhouse, kind)


def test_the_servers_range_bounds_dates() -> None:
    for sql, (low, high) in (
        ("date", SERVER.date32),
        ("timestamp", SERVER.datetime64),
        ("timestamptz", SERVER.datetime64),
    ):
        codec = target_of(column(sql), SERVER, Forms()).codec
        assert (codec.minimum, codec.maximum) == (low, high)


def test_a_server_without_time64_gets_text() -> None:
    assert target_of(column("time"), replace(SERVER, time64=False), Forms()).clickhouse == "String"


def test_a_domain_is_its_base_type() -> None:
    money = Type(2, "money_amount", "money_amount", TypeKind.DOMAIN, inner=type_of("numeric(10,2)"))
    nested = Type(3, "price", "price", TypeKind.DOMAIN, inner=money)
    assert target_of(Column("c", 1, nested), SERVER, Forms()).clickhouse == "Decimal(10, 2)"


@pytest.mark.parametrize(
    ("sql", "dimensions", "clickhouse", "wire"),
    [
        ("int4[]", 1, "Array(Nullable(Int32))", None),
        ("int4[]", 0, "Array(Nullable(Int32))", None),  # attndims says 0 after CREATE TABLE AS
        ("int4[]", 3, "Array(Array(Array(Nullable(Int32))))", None),
        ("numeric(4,2)[]", 1, "Array(Nullable(Decimal(4, 2)))", None),
        ("enum[]", 1, "Array(LowCardinality(Nullable(String)))", "Array(Nullable(String))"),
        ("hstore[]", 1, "Array(Map(String, Nullable(String)))", None),
        ("vector[]", 1, "Array(Array(Float32))", None),
        ("int4range[]", 1, "Array(Nullable(String))", None),
    ],
)
def test_arrays(sql: str, dimensions: int, clickhouse: str, wire: str | None) -> None:
    target = target_of(replace(column(sql), dimensions=dimensions), SERVER, Forms())
    assert (target.clickhouse, target.wire) == (clickhouse, wire or clickhouse)


def test_arrays_of_a_domain_over_arrays_hold_text() -> None:
    domain = Type(2, "d", "d", TypeKind.DOMAIN, inner=type_of("int4[]"))
    array = Type(3, "_d", "d[]", TypeKind.ARRAY, inner=domain)
    assert target_of(Column("c", 1, array, dimensions=1), SERVER, Forms()).clickhouse == "Array(Nullable(String))"


def test_forms() -> None:
    for form, kind in (("raw", Kind.BYTEA), ("hex", Kind.HEX), ("base64", Kind.BASE64)):
        assert target_of(column("bytea"), SERVER, Forms(bytea=form)).codec.kind is kind
    wanted = Forms(json="json")
    assert target_of(column("jsonb"), replace(SERVER, json=True), wanted).clickhouse == "JSON"
    assert target_of(column("jsonb"), SERVER, wanted).clickhouse == "String"
    array = replace(column("jsonb[]"), dimensions=1)
    assert target_of(array, replace(SERVER, json=True), wanted).clickhouse == "Array(Nullable(String))"


@pytest.mark.parametrize(
    ("sql", "asked", "clickhouse", "wire"),
    [
        ("numeric", "String", "String", "String"),
        ("int4", "LowCardinality(String)", "LowCardinality(String)", "String"),
        ("int4", "Nullable(Int64)", "Int64", "Int32"),
        ("int8", "Int256", "Int256", "Int64"),
        ("oid", "Int64", "Int64", "UInt32"),
        ("float4", "Float64", "Float64", "Float32"),
        ("bool", "UInt8", "UInt8", "Bool"),
        ("numeric", "Decimal(18, 4)", "Decimal(18, 4)", "Decimal(18, 4)"),
        ("numeric(10,2)", "Decimal(20,3)", "Decimal(20, 3)", "Decimal(20, 3)"),
        ("numeric(4,0)", "Int16", "Int16", "Decimal(9, 0)"),
        ("numeric(18,0)", "Int64", "Int64", "Int64"),
        ("numeric(30,0)", "Int256", "Int256", "Int256"),
        ("timestamptz", "DateTime64(6, 'Europe/Berlin')", "DateTime64(6, 'Europe/Berlin')", "DateTime64(6, 'UTC')"),
        ("int4[]", "Array(Nullable(Int64))", "Array(Nullable(Int64))", "Array(Nullable(Int32))"),
        ("text[]", "Array(LowCardinality(Nullable(String)))", "Array(LowCardinality(Nullable(String)))", "Array(Nullable(String))"),
        ("int4[]", "String", "String", "String"),
        ("uuid", "UUID", "UUID", "UUID"),
    ],
)  # fmt: skip
def test_overrides(sql: str, asked: str, clickhouse: str, wire: str) -> None:
    target = overridden(replace(column(sql), dimensions=sql.count("[]")), asked, SERVER)
    assert (target.clickhouse, target.wire) == (clickhouse, wire)


@pytest.mark.parametrize(
    ("sql", "asked"),
    [
        ("int4", "Int16"),
        ("int4", "UInt64"),
        ("int4", "Float32"),
        ("int8", "Float64"),
        ("float8", "Float32"),
        ("numeric(10,2)", "Decimal(10, 3)"),
        ("numeric(10,2)", "Int64"),
        ("numeric(5,0)", "Int16"),
        ("numeric", "Int128"),
        ("numeric", "Decimal(77, 2)"),
        ("date", "Date"),
        ("timestamp", "DateTime"),
        ("timestamp", "DateTime64(3)"),
        ("text", "FixedString(3)"),
        ("int4[]", "Array(Int64)) engine = Null"),
        ("int4[]", "Array(Array(Nullable(Int32)))"),
        ("int4", "Int64 default 1"),
        ("numeric", " "),
    ],
)
def test_overrides_that_lose(sql: str, asked: str) -> None:
    with pytest.raises(ConfigError, match='column "c"'):
        overridden(replace(column(sql), dimensions=sql.count("[]")), asked, SERVER)


def test_json_is_asked_for_by_name() -> None:
    newer = replace(SERVER, json=True)
    assert overridden(column("json"), "JSON", newer).clickhouse == "JSON"
    assert overridden(column("json"), "Nullable(JSON)", newer).clickhouse == "JSON"
    assert overridden(column("json"), "JSON", SERVER).clickhouse == "String"
    for sql, asked in (("text", "JSON"), ("json[]", "Array(JSON)"), ("json[]", "JSON"), ("json", "JSON(a Int64)")):
        with pytest.raises(ConfigError, match='column "c"'):
            overridden(replace(column(sql), dimensions=sql.count("[]")), asked, newer)


def test_every_example_fits_its_type() -> None:
    for row in (*ROWS, *TEXTS):
        target = row.of(type_of(row.names[0]), SERVER, Forms())
        if target.codec.kind is not Kind.GEOMETRY:  # the example is what it becomes
            assert not encode(target.codec, row.example.encode()).null
