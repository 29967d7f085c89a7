"""Another ClickHouse type than the type map's, where the user asks for one: any that holds every value of the column.

The value is sent in the map's own form and cast by ClickHouse, which widens without loss; a Decimal is encoded as asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock.errors import ConfigError
from penstock.typemap import (
    AS_TEXT,
    JSON,
    Capabilities,
    Codec,
    Forms,
    Kind,
    Target,
    array_of,
    decimal,
    numeric_digits,
    scalar_target,
    target_of,
)

if TYPE_CHECKING:
    from penstock.table import Column, Type

_TEXT = ("String", "LowCardinality(String)")
_WIDER: dict[str, tuple[str, ...]] = {
    "int2": ("Int16", "Int32", "Int64", "Int128", "Int256", "Float32", "Float64"),
    "int4": ("Int32", "Int64", "Int128", "Int256", "Float64"),
    "int8": ("Int64", "Int128", "Int256"),
    "oid": ("UInt32", "UInt64", "UInt128", "UInt256", "Int64", "Int128", "Int256", "Float64"),
    "xid": ("UInt32", "UInt64", "UInt128", "UInt256", "Int64", "Int128", "Int256", "Float64"),
    "float4": ("Float32", "Float64"),
    "float8": ("Float64",),
    "bool": ("Bool", "UInt8"),
    "uuid": ("UUID",),
}
_WHOLE = {4: "Int16", 9: "Int32", 18: "Int64", 38: "Int128", 76: "Int256"}
"""By the most digits that each certainly holds."""
_DECIMAL = re.compile(r"Decimal\((\d+), ?(\d+)\)")
_INSTANT = re.compile(r"DateTime64\(6(?:, ?'[A-Za-z0-9_+/-]+')?\)")


def overridden(column: Column, wanted: str, server: Capabilities) -> Target:
    """What ``column`` becomes when the configuration asks for ``wanted``. Raises ConfigError for what does not hold its values."""
    name = wanted.strip()
    if name.startswith("Nullable(") and name.endswith(")"):
        name = name.removeprefix("Nullable(")[:-1].strip()
    if not name:
        raise ConfigError(
            f'types: the type for column "{column.name}" is empty', hint='Write a ClickHouse type, such as "String".'
        )
    if name in _TEXT:
        return Target(AS_TEXT.codec, name, "String")
    natural = target_of(column, server, Forms())
    found = (
        _array(column, name, server) if natural.codec.kind is Kind.ARRAY else _scalar(column.type.base, name, server)
    )
    if found is None:
        possible = dict.fromkeys((natural.clickhouse, *_WIDER.get(column.type.base.name, ()), *_TEXT))
        raise ConfigError(
            f'types: column "{column.name}" is {column.type.sql}, and {wanted} does not hold every value of it',
            hint=f"Possible are {', '.join(possible)}.",
        )
    return found


def _array(column: Column, name: str, server: Capabilities) -> Target | None:
    dimensions = max(1, column.dimensions)
    inner = column.type.base.inner
    if inner is None or not name.startswith("Array(" * dimensions) or not name.endswith(")" * dimensions):
        return None
    element = name[len("Array(") * dimensions : -dimensions].strip()
    for wrapped in ("Nullable(", "LowCardinality(Nullable("):
        if element.startswith(wrapped):
            element = element.replace("Nullable(", "", 1)[:-1]
    natural = target_of(column, server, Forms())
    if name == natural.clickhouse:
        return natural
    found = Target(AS_TEXT.codec, element, "String") if element in _TEXT else _scalar(inner.base, element, server)
    return array_of(found, column) if found and found is not JSON else None


def _scalar(base: Type, name: str, server: Capabilities) -> Target | None:
    natural = scalar_target(base, server, Forms())
    if name == natural.clickhouse:
        return natural
    if name in _WIDER.get(base.name, ()):
        return Target(natural.codec, name, natural.wire)
    if base.name == "numeric":
        return _numeric(base, name)
    if base.name in ("timestamp", "timestamptz") and _INSTANT.fullmatch(name):
        return Target(natural.codec, name, natural.wire, unfit=natural.unfit)
    if base.name in ("json", "jsonb") and name == "JSON":
        return JSON if server.json else AS_TEXT  # the server is older: narrower, as where the whole pipe asks for it
    return None


def _numeric(base: Type, name: str) -> Target | None:
    """A Decimal with as many digits on either side, an integer for one without a fraction; any Decimal for one without a declaration."""
    declared = numeric_digits(base)
    if found := _DECIMAL.fullmatch(name):
        precision, scale = int(found[1]), int(found[2])
        if not 1 <= precision <= 76 or scale > precision:
            return None
        if declared is None:
            return decimal(precision, scale, "more digits than it has, NaN, ±Infinity")
        if scale >= declared[1] and precision - scale >= declared[0] - declared[1]:
            return decimal(precision, scale, "NaN")
    if declared is not None and declared[1] == 0:
        for digits, whole in _WHOLE.items():
            if name == whole and declared[0] <= digits:
                return _whole(digits, whole)
    return None


def _whole(digits: int, name: str) -> Target:
    """The bytes of a Decimal without a fraction are those of an integer. Int16 has no Decimal of its width: it is cast."""
    sent = decimal(max(digits, 9), 0, "NaN")
    wire = sent.wire if digits == 4 else name
    return Target(
        Codec(Kind.DECIMAL, sent.codec.width, sent.codec.precision), name, wire, always_nullable=True, unfit="NaN"
    )
