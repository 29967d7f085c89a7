"""Tables and plans for tests that need no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.config import Pipe, parse
from penstock.plan import Plan, compile_plan
from penstock.table import Column, ReplicaIdentity, Table, Type, TypeKind
from penstock.typemap import Capabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

DAY_MICROS = 86_400_000_000
SERVER = Capabilities(
    version="26.7",
    date32=(-25_567, 120_529),  # 1900-01-01 … 2299-12-31
    datetime64=(-719_162 * DAY_MICROS, 2_932_897 * DAY_MICROS - 1),  # years 1 … 9999
    time64=True,
)
TABLE_OID = 9000


def type_of(sql: str) -> Type:
    """``int4``, ``numeric(10,2)``, ``enum``, ``text[]``: enough of PostgreSQL's names for tests."""
    if sql.endswith("[]"):
        element = type_of(sql.rstrip("[]"))
        return Type(2, "_" + element.name, sql, kind=TypeKind.ARRAY, modifier=element.modifier, inner=element)
    name, _, parameters = sql.partition("(")
    modifier = -1
    if name == "numeric" and parameters:
        precision, scale = (int(part) for part in parameters[:-1].split(","))
        modifier = (precision << 16 | scale & 0x7FF) + 4
    return Type(1, name, sql, kind=TypeKind.ENUM if name == "enum" else TypeKind.BASE, modifier=modifier)


def table_of(columns: str, key: Sequence[str] = ("id",), *, full: bool = False, oid: int = TABLE_OID) -> Table:
    """``columns``: ``"id int4, note text"``; a trailing ``!`` means NOT NULL, and so does a place in the key."""
    parsed = []
    for number, part in enumerate(columns.split(", "), start=1):
        name, sql = part.split(" ", 1)
        toasted = sql.rstrip("!") in ("text", "bytea", "numeric") or sql.rstrip("!").endswith("[]")
        parsed.append(
            Column(
                name,
                number,
                type_of(sql.rstrip("!")),
                not_null=sql.endswith("!") or name in key,
                dimensions=sql.count("[]"),
                may_be_unchanged=toasted,
            )
        )
    identity = ReplicaIdentity.FULL if full else ReplicaIdentity.DEFAULT
    return Table(
        oid=oid,
        schema="public",
        name="t",
        columns=tuple(parsed),
        key=tuple(key),
        replica_identity=identity,
        identity=tuple(column.name for column in parsed) if full else tuple(key),
    )


def pipe_of(options: dict[str, Any] | None = None, **settings: Any) -> Pipe:
    raw = {
        "pipe": {"name": "shop"},
        "source": {"dsn": "postgresql://db.example.com/shop"},
        "destination": {"dsn": "chdb:///tmp/shop"},
        "tables": {"options": {"public.t": options or {}}},
        "settings": settings,
    }
    return parse(raw, origin="test")


def plan_of(
    columns: str,
    key: Sequence[str] = ("id",),
    *,
    full: bool = False,
    oid: int = TABLE_OID,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> Plan:
    return compile_plan(table_of(columns, key, full=full, oid=oid), pipe_of(options, **settings), SERVER)
