"""Finds the newest stored rows of keys: what completes rows whose UPDATE left out unchanged values (clickhouse.md 11 to 13).

Keys come as PostgreSQL's text and are read by ClickHouse, once for the primary index and once to match the rows found
with the keys asked for: ``1.0`` and ``1.00`` are one numeric key. Values go back as the bytes of a Native column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.clickhouse.client import quoted
from penstock.clickhouse.native import read_blocks
from penstock.plan import PlanColumn
from penstock.typemap import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from penstock.batch import Value
    from penstock.clickhouse.client import Client
    from penstock.plan import Plan, PlanColumn

PARAMETER_BYTES = 100_000
"""A server takes fields of a form up to 128 KiB (http_max_field_value_size)."""

_READ: dict[Kind, str] = {
    Kind.FLOAT32: "toFloat32({text}) + toFloat32(0)",  # −0 is 0
    Kind.FLOAT64: "toFloat64({text}) + toFloat64(0)",
    Kind.BOOL: "({text} = 't')::Bool",
    Kind.BYTEA: "unhex(substring({text}, 3))",
    Kind.DATETIME64: "toDateTime64(replaceRegexpOne({text}, '[+]00$', ''), 6, 'UTC')",
}
"""How a key's text becomes its column's value; the others by a cast."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest row of a key. ``values`` are by index into the plan's columns."""

    version: int
    deleted: bool
    values: Mapping[int, Value]


def newest(
    client: Client,
    database: str,
    plan: Plan,
    identities: Sequence[tuple[bytes, ...]],
    columns: Sequence[int],
    *,
    below: int | None = None,
) -> dict[tuple[bytes, ...], Stored]:
    """The newest stored row of each key, tombstones too; with ``below``, the newest of a smaller version.

    ``identities`` are PostgreSQL's text of the plan's identity columns. Keys that are not there are left out.
    """
    query = _query(database, plan, columns, bounded=below is not None)
    if not client.embedded:
        query += " settings select_sequential_consistency = 1"  # any replica may answer
    found: dict[tuple[bytes, ...], Stored] = {}
    for chosen in _chunked(identities):
        parameters: dict[str, object] = {
            f"key_{place}": [identity[place].hex() for identity in chosen] for place in range(len(plan.identity))
        }
        if below is not None:
            parameters["below"] = below
        body = client.native(query, parameters, subject=f"{database}.{plan.target}")
        found.update((chosen[place], row) for place, row in _rows(body, columns))
    return found


def _query(database: str, plan: Plan, columns: Sequence[int], *, bounded: bool) -> str:
    """The table's columns are always named with its alias ``t``: one of them may have the name of an alias here."""
    keyed = [(f"key_{place}", plan.columns[index]) for place, index in enumerate(plan.identity)]
    aliases = ", ".join(alias for alias, _ in keyed)
    names = ", ".join(f"t.{quoted(column.name)}" for _, column in keyed)
    selected = ", ".join(f"t.{quoted(column.name)} as {alias}" for alias, column in keyed)
    version, deleted = (f"t.{quoted(name)}" for name, _ in plan.wire_metadata[:2])
    values = "".join(f", t.{quoted(plan.columns[index].name)}" for index in columns)
    casts = "".join(
        f", cast(tupleElement(newest, {number}), {_literal(plan.columns[index].wire)}) as value_{number}"
        for number, index in enumerate(columns, start=2)
    )
    bound = f" and {version} < {{below:UInt128}}" if bounded else ""
    newest_rows = f"""\
select {selected}, max({version}) as version, argMax(tuple({deleted}{values}), {version}) as newest
from {quoted(database)}.{quoted(plan.target)} as t
where ({names}) in (select {aliases} from wanted){bound}
group by {names}"""  # noqa: S608 -- identifiers are quoted, values bound
    return f"""\
with wanted as ({_wanted(keyed)})
select wanted.place as place, found.version as version, tupleElement(newest, 1) as deleted{casts}
from ({newest_rows}) as found
inner join wanted using ({aliases})"""  # noqa: S608 -- as above


def _wanted(keyed: Sequence[tuple[str, PlanColumn]]) -> str:
    """The keys asked for, read from their texts, with their places in the list (from 1)."""
    arrays = ", ".join(f"{{{alias}:Array(String)}}" for alias, _ in keyed)
    reads = ", ".join(
        f"{_read(column, f'unhex(tupleElement(texts, {place}))')} as {alias}"
        for place, (alias, column) in enumerate(keyed, start=2)
    )
    zipped = f"arrayJoin(arrayZip(arrayEnumerate({{key_0:Array(String)}}), {arrays})) as texts"
    return f"select tupleElement(texts, 1) as place, {reads} from (select {zipped})"  # noqa: S608 -- as above


def _read(column: PlanColumn, text: str) -> str:
    if column.codec.kind in _READ:
        return _READ[column.codec.kind].format(text=text)
    return f"cast({text}, {_literal(column.clickhouse)})"


def _literal(type_: str) -> str:
    return "'" + type_.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _chunked(identities: Sequence[tuple[bytes, ...]]) -> Iterator[list[tuple[bytes, ...]]]:
    """Lists of distinct keys, none of whose parameters is too large."""
    chosen: list[tuple[bytes, ...]] = []
    size = 0
    for identity in dict.fromkeys(identities):
        length = max(len(text) for text in identity) * 2 + 3
        if chosen and size + length > PARAMETER_BYTES:
            yield chosen
            chosen, size = [], 0
        chosen.append(identity)
        size += length
    if chosen:
        yield chosen


def _rows(body: bytes, columns: Sequence[int]) -> Iterator[tuple[int, Stored]]:
    """Places in the list of keys, with the row found there."""
    for places, versions, deleted, *values in read_blocks(body):
        for row, place in enumerate(places):
            yield (
                int.from_bytes(place.data, "little") - 1,
                Stored(
                    version=int.from_bytes(versions[row].data, "little"),
                    deleted=deleted[row].data != b"\0",
                    values={index: column[row] for index, column in zip(columns, values, strict=True)},
                ),
            )
