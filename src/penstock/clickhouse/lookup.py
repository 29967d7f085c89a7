"""Finds the newest stored rows of keys: what completes rows whose UPDATE left out unchanged values (clickhouse.md 11 to 13).

Keys come as PostgreSQL's text and are read by ClickHouse, once for the primary index and once to match the rows found
with the keys asked for: ``1.0`` and ``1.00`` are one numeric key. Only floats go as bytes: older servers read their last
digits wrong. Values go back as the bytes of a Native column.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clickhouse_connect.driver.binding import format_str

from penstock.clickhouse import documents
from penstock.clickhouse.client import quoted
from penstock.clickhouse.native import read_blocks
from penstock.errors import DestinationUnavailableError, PenstockError, ResultTooLargeError
from penstock.plan import PlanColumn
from penstock.typemap import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from penstock.batch import Value
    from penstock.clickhouse.client import Client
    from penstock.plan import Plan, PlanColumn
    from penstock.spill import Spill

PARAMETER_BYTES = 100_000
"""A server takes fields of a form up to 128 KiB (http_max_field_value_size)."""
ANSWER_BYTES = 32 << 20
"""An answer for several keys is no larger: beyond it they are asked for in parts. One row may have any size."""

_READ: dict[Kind, str] = {
    Kind.FLOAT32: "reinterpretAsFloat32({text})",
    Kind.FLOAT64: "reinterpretAsFloat64({text})",
    Kind.BOOL: "({text} = 't')::Bool",
    Kind.BYTEA: "unhex(substring({text}, 3))",
    Kind.DATETIME64: "toDateTime64(replaceRegexpOne({text}, '[+]00$', ''), 6, 'UTC')",
}
"""How what is sent of a key becomes its column's value; the others by a cast."""
_PACKED = {Kind.FLOAT32: "<f", Kind.FLOAT64: "<d"}
_MATCHED = {Kind.FLOAT32: "reinterpretAsUInt32({value})", Kind.FLOAT64: "reinterpretAsUInt64({value})"}


@dataclass(frozen=True, slots=True)
class Stored:
    """The newest row of a key. ``values`` are by index into the plan's columns; what cannot be had as it is stored is left out."""

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

    Where one change left a tombstone at the row's old place and the row at its new one, that is the row.

    ``identities`` are PostgreSQL's text of the plan's identity columns. Keys that are not there are left out.
    """
    return dict(_found(client, _Question(database, plan, columns, below), identities))


def newest_version(client: Client, database: str, table: str, column: str, first: int) -> int:
    """The largest version in a table, if it is ``first`` or beyond it; otherwise 0."""
    stored = f"select {quoted(column)} as v from {quoted(database)}.{quoted(table)}"  # noqa: S608 -- identifiers are quoted
    wanted = f"select max(v) from ({stored}) where v >= toUInt128({{first:String}})"  # noqa: S608
    wanted += "" if client.embedded else " settings select_sequential_consistency = 1"  # any replica may answer
    ((version,),) = client.rows(wanted, {"first": str(first)}, subject=f"{database}.{table}")
    return int(version)


def places(
    client: Client, database: str, plan: Plan, identities: Sequence[tuple[bytes, ...]]
) -> dict[tuple[bytes, ...], list[Stored]]:
    """The rows of each key that are alive, one a place in the table, with the values of the plan's moving columns."""
    alive: dict[tuple[bytes, ...], list[Stored]] = {}
    for identity, row in _found(client, _Question(database, plan, plan.moving, by_place=True), identities):
        if not row.deleted:
            alive.setdefault(identity, []).append(row)
    return alive


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of some keys: these columns of the newest row of each, or of each place where it has been."""

    database: str
    plan: Plan
    columns: Sequence[int]
    below: int | None = None  # of rows of a smaller version only
    by_place: bool = False


def _found(
    client: Client, question: _Question, identities: Sequence[tuple[bytes, ...]]
) -> Iterator[tuple[tuple[bytes, ...], Stored]]:
    """Keys with their rows, asked for in as many parts as the answers' sizes need."""
    spill = client.spill()
    left = list(dict.fromkeys(identities))
    most = len(left)
    while left:
        chosen = left[: _fitting(left, most)]
        try:
            body = _ask(client, question, chosen)
        except ResultTooLargeError:
            most = max(1, len(chosen) // 2)
            continue
        left = left[len(chosen) :]
        most *= 2
        yield from ((chosen[place], row) for place, row in _rows(body, question.plan, question.columns, spill))


def _ask(client: Client, question: _Question, chosen: Sequence[tuple[bytes, ...]]) -> bytes:
    """The answer for these keys; if they are several, within bounds. Raises ResultTooLargeError."""
    plan = question.plan
    texts = [
        _bound(f"text_{place}", [_sent(plan.columns[index], each[place]) for each in chosen])
        for place, index in enumerate(plan.identity)
    ]
    query = _query(question, [array for array, _ in texts])
    settings = documents.settings(client) if documents.places(plan) else {}
    if not client.embedded:
        settings["select_sequential_consistency"] = 1  # any replica may answer
    if settings:
        query += " settings " + ", ".join(f"{name} = {value}" for name, value in settings.items())
    parameters = {name: value for _, values in texts for name, value in values.items()}
    if question.below is not None:
        parameters["below"] = question.below
    most_bytes = ANSWER_BYTES if len(chosen) > 1 else 0
    return client.native(query, parameters, subject=f"{question.database}.{plan.target}", most_bytes=most_bytes)


def _sent(column: PlanColumn, text: bytes) -> str:
    """In hexadecimal: any byte may be in it, and what it is quoted by matters to nobody."""
    if column.codec.kind in _PACKED:
        return struct.pack(_PACKED[column.codec.kind], float(text) + 0.0).hex()  # −0 is 0
    return text.hex()


def _bound(name: str, texts: list[str]) -> tuple[str, dict[str, object]]:
    """An array of texts as an expression with its parameters. One text may be too long for a parameter: it goes in pieces."""
    if len(texts) > 1 or len(texts[0]) <= PARAMETER_BYTES:
        return f"{{{name}:Array(String)}}", {name: texts}
    pieces = [texts[0][at : at + PARAMETER_BYTES] for at in range(0, len(texts[0]), PARAMETER_BYTES)]
    expression = ", ".join(f"{{{name}_{number}:String}}" for number in range(len(pieces)))
    return f"[concat({expression})]", {f"{name}_{number}": piece for number, piece in enumerate(pieces)}


def _query(question: _Question, texts: Sequence[str]) -> str:
    """``texts`` are array expressions, one a column of the key.

    The table's columns are always named with its alias: one of them may have the name of an alias here.
    """
    plan, columns = question.plan, question.columns
    t = _alias(plan)
    keyed = [plan.columns[index] for index in plan.identity]
    keys = ", ".join(f"key_{place}" for place in range(len(keyed)))
    values = ", ".join(f"value_{place}" for place in range(len(keyed)))
    names = ", ".join(f"{t}.{quoted(column.name)}" for column in keyed)
    selected = ", ".join(
        f"{_matched(column, f'{t}.{quoted(column.name)}')} as key_{place}" for place, column in enumerate(keyed)
    )
    version, deleted = (f"{t}.{quoted(name)}" for name, _ in plan.wire_metadata[:2])
    asked = "".join(f", {t}.{quoted(plan.columns[index].name)}" for index in columns)
    exact = "".join(
        f", {documents.exact(plan, f'tupleElement(newest, {number})')} as exact_{number}"
        for number, index in enumerate(columns, start=2)
        if plan.columns[index].codec.kind is Kind.JSON
    )
    casts = "".join(
        f", cast(tupleElement(newest, {number}), {format_str(plan.columns[index].wire)}) as column_{number}"
        for number, index in enumerate(columns, start=2)
    )
    newness = f"tuple({version}, 1 - {deleted})" if plan.moving else version
    grouped = "".join(f", {t}.{quoted(plan.columns[index].name)}" for index in plan.moving if question.by_place)
    bound = f" and {version} < {{below:UInt128}}" if question.below is not None else ""
    newest_rows = f"""\
select {selected}, max({version}) as version, argMax(tuple({deleted}{asked}), {newness}) as newest
from {quoted(question.database)}.{quoted(plan.target)} as {t}
where ({names}) in (select {values} from wanted){bound}
group by {names}{grouped}"""  # noqa: S608 -- identifiers are quoted, values bound
    return f"""\
with wanted as ({_wanted(keyed, texts)})
select wanted.place as place, found.version as version, tupleElement(newest, 1) as deleted{casts}{exact}
from ({newest_rows}) as found
inner join (select place, {keys} from wanted) as wanted using ({keys})"""  # noqa: S608 -- as above


def _alias(plan: Plan) -> str:
    """``t``, or longer: with a column called ``t``, ``t.null`` would be whether that column is NULL."""
    taken = {name.partition(".")[0] for name in plan.column_names}
    alias = "t"
    while alias in taken:
        alias += "_"
    return alias


def _wanted(keyed: Sequence[PlanColumn], texts: Sequence[str]) -> str:
    """The keys asked for, read from their texts, with their places in the list (from 1)."""
    reads = ", ".join(
        f"{_read(column, f'unhex(tupleElement(texts, {place + 2}))')} as value_{place},"
        f" {_matched(column, f'value_{place}')} as key_{place}"
        for place, column in enumerate(keyed)
    )
    zipped = f"arrayJoin(arrayZip(arrayEnumerate({texts[0]}), {', '.join(texts)})) as texts"
    return f"select tupleElement(texts, 1) as place, {reads} from (select {zipped})"  # noqa: S608 -- as above


def _matched(column: PlanColumn, value: str) -> str:
    """What found and wanted rows are joined by: a join does not take NaN for NaN."""
    return _MATCHED.get(column.codec.kind, "{value}").format(value=value)


def _read(column: PlanColumn, text: str) -> str:
    """An expression of the column's value, from one of its text."""
    if column.codec.kind in _READ:
        return _READ[column.codec.kind].format(text=text)
    return f"cast({text}, {format_str(column.clickhouse)})"


def constant(client: Client, column: PlanColumn, text: str, value: Value) -> str | None:
    """An expression that gives exactly ``value``, whose text in PostgreSQL is ``text``; None where there is none."""
    expression = _read(column, format_str(text))
    query = f"select cast({expression}, {format_str(column.wire)})"
    try:
        found = [each for block in read_blocks(client.native(query)) for each in block[0]]
    except DestinationUnavailableError:
        raise
    except (PenstockError, KeyError):  # not of its type, or of one that cannot be cut
        return None
    return expression if found == [value] else None


def _fitting(identities: Sequence[tuple[bytes, ...]], most: int) -> int:
    """How many of the keys, from the first on, make parameters that are not too large: one at least, ``most`` at most."""
    size = 0
    for number, identity in enumerate(identities[:most]):
        size += max(len(text) for text in identity) * 2 + 3
        if number and size > PARAMETER_BYTES:
            return number
    return min(most, len(identities))


def _rows(body: bytes, plan: Plan, columns: Sequence[int], spill: Spill) -> Iterator[tuple[int, Stored]]:
    """Places in the list of keys, with the row found there, but for JSON whose text would make another value."""
    json = [index for index in columns if plan.columns[index].codec.kind is Kind.JSON]
    for places, versions, deleted, *values in read_blocks(body):
        exact = dict(zip(json, values[len(columns) :], strict=True))
        for row, place in enumerate(places):
            yield (
                int.from_bytes(place.whole, "little") - 1,
                Stored(
                    version=int.from_bytes(versions[row].whole, "little"),
                    deleted=deleted[row].whole != b"\0",
                    values={
                        index: _kept(column[row], spill)
                        for index, column in zip(columns, values, strict=False)
                        if index not in exact or exact[index][row].whole != b"\0"
                    },
                ),
            )


def _kept(value: Value, spill: Spill) -> Value:
    kept = spill.keep(value.whole)
    return value if isinstance(kept, bytes) else replace(value, data=kept)
