"""Values of real servers: what COPY prints, decoded, is what PostgreSQL's own binary form says."""

from __future__ import annotations

import contextlib
import random
import struct
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from tests.faker import VALUES
from tests.native_block import rows_of
from tests.plans import DAY_MICROS, SERVER, plan_of

from penstock.postgres.connection import SESSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tests.fix_postgres import Database

SINCE_2000 = 10_957  # days
EDGES = {
    "float4": ["3.4028235e38", "1e-45", "16777217", "NaN", "-0"],
    "float8": ["1.7976931348623157e308", "5e-324", "0.1", "9007199254740993", "-Infinity"],
    "numeric": ["1e37", "1e38", "-1e38", "1e-38", "1e-39", "0.00", "1e1000", "1.50"],
    "date": [
        "4714-11-24 BC",
        "5874897-12-31",
        "0001-01-01",
        "0001-12-31 BC",
        "2000-02-29",
        "infinity",
        "1899-12-31",
        "2299-12-31",
    ],
    "timestamp": [
        "4714-11-24 00:00:00 BC",
        "294276-12-31 23:59:59.999999",
        "1970-01-01",
        "1969-12-31 23:59:59.999999",
        "infinity",
    ],
    "timestamptz": [
        "0001-01-01 00:00:00+00",
        "9999-12-31 23:59:59.999999+00",
        "2024-03-31 02:30:00 Europe/Berlin",
        "-infinity",
    ],
    "time": ["00:00:00", "24:00:00", "23:59:59.999999", "12:00:00.1"],
    "bytea": ["\\x", "\\x00", "\\xdeadbeef"],
    "text": ["", "\\N", "\\.", "a\tb\nc\rd\\e", "\b\f\v\x7f", "NULL", "𝄞"],
}
SENT = {
    "int2": "int2send",
    "int4": "int4send",
    "int8": "int8send",
    "oid": "oidsend",
    "float4": "float4send",
    "float8": "float8send",
    "bool": "boolsend",
    "numeric": "numeric_out",
    "text": "textsend",
    "bytea": "byteasend",
    "uuid": "uuid_send",
    "date": "date_send",
    "timestamp": "timestamp_send",
    "timestamptz": "timestamptz_send",
    "time": "time_send",
}


def number(sent: bytes) -> int:
    return int.from_bytes(sent, "big", signed=True)


def bounded(value: int, infinite: int, bounds: tuple[int, int], shift: int) -> int:
    """PostgreSQL's infinities are the ends of its integer."""
    low, high = bounds
    if value in (infinite, -infinite - 1):
        return high if value > 0 else low
    return min(max(value + shift, low), high)


def numeric(sent: bytes) -> Decimal | None:
    """NULL where Decimal(76, 38) cannot hold it."""
    whole, _, fraction = sent.decode().partition(".")
    digits = whole.lstrip("-")
    fits = digits.isdigit() and len(digits) <= 38 and len(fraction.rstrip("0")) <= 38
    return Decimal(sent.decode()) if fits else None


MEANS: dict[str, Callable[[bytes], Any]] = {
    "int2": number,
    "int4": number,
    "int8": number,
    "oid": lambda sent: int.from_bytes(sent, "big"),
    "float4": lambda sent: struct.unpack(">f", sent)[0],
    "float8": lambda sent: struct.unpack(">d", sent)[0],
    "bool": lambda sent: sent == b"\1",
    "numeric": numeric,
    "text": bytes,
    "bytea": bytes,
    "uuid": bytes,
    "date": lambda sent: bounded(number(sent), 2**31 - 1, SERVER.date32, SINCE_2000),
    "timestamp": lambda sent: bounded(number(sent), 2**63 - 1, SERVER.datetime64, SINCE_2000 * DAY_MICROS),
    "timestamptz": lambda sent: bounded(number(sent), 2**63 - 1, SERVER.datetime64, SINCE_2000 * DAY_MICROS),
    "time": number,
}


def filled(database: Database, type_: str) -> None:
    """A table of 100 random values, the edges and NULL; what PostgreSQL refuses is left out."""
    rng = random.Random(type_)
    values: list[str | None] = [
        *EDGES.get(type_, []),
        None,
        *(VALUES[type_](rng).replace("\0", "") for _ in range(100)),
    ]
    insert = sql.SQL("insert into t (v) values (%s::{})").format(sql.Identifier("pg_catalog", type_))
    with database.connect() as connection:
        connection.execute(sql.SQL("create table t (id int generated always as identity, v {})").format(sql.SQL(type_)))  # type: ignore[arg-type]
        for value in values:
            with contextlib.suppress(psycopg.DataError):
                connection.execute(insert, (value,))


def comparable(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack(">d", value)
    return value.bytes if hasattr(value, "bytes") else value


@pytest.mark.parametrize("type_", SENT)
def test_a_copied_value_is_postgresqls_own(decoder: ModuleType, database: Database, type_: str) -> None:
    filled(database, type_)
    out = sql.SQL("{}(v)").format(sql.Identifier("pg_catalog", SENT[type_]))
    if type_ == "numeric":
        out = sql.SQL("convert_to({}::text, 'UTF8')").format(out)
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in SESSION.items())
    copy = decoder.CopyDecoder(plan_of(f"id int4, v {type_}"), 10_000, 1 << 30, 1)
    with database.connect(options=options, client_encoding="UTF8") as connection:
        with connection.cursor().copy("copy (select id, v from public.t order by id) to stdout") as chunks:
            for chunk in chunks:
                copy.receive(chunk)
        copy.finish()
        sent = connection.execute(sql.SQL("select id, {} from public.t order by id").format(out)).fetchall()
    assert len(sent) > (2 if type_ == "bool" else 50)
    got = [(row["id"], comparable(row["v"])) for row in rows_of(copy.take())]
    assert got == [(row, None if value is None else comparable(MEANS[type_](value))) for row, value in sent]
