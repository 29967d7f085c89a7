"""Columns of type JSON: which texts ClickHouse refuses, and which stored values it gives back as they are.

They are sent as text, and ClickHouse casts it; it refuses a whole block for one text: a key that stands twice, a number beyond
Float64, half a surrogate pair, more than 1000 levels. What it takes differs by release, so it is asked itself, and only after it
has refused: such texts are unfit. What cannot be an object at all, the decoder has sorted out before.

A stored value completes a row only if its text makes the same value again: 1.0 comes back as 1, which would be an integer, and
1e20 as more digits than are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.batch import REFUSED_JSON, EncodedColumn, Rejected, Unfit, cut, varint
from penstock.clickhouse.client import quoted
from penstock.spill import read
from penstock.typemap import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.batch import Batch
    from penstock.clickhouse.client import Client
    from penstock.clickhouse.connect import Scalar
    from penstock.plan import Plan
    from penstock.spill import Spilled

RUN_BYTES = 16 << 20
"""So much text is asked about at once; a single one may have any size."""
_SETTINGS: dict[str, Scalar] = {
    # a text stays a text
    "input_format_try_infer_dates": 0,
    "input_format_try_infer_datetimes": 0,
    "input_format_json_try_infer_numbers_from_strings": 0,
    # and an array's elements stay what they are, beside others
    "input_format_json_infer_array_of_dynamic_from_array_of_different_types": 1,
    "input_format_json_read_bools_as_numbers": 0,
    "input_format_json_read_bools_as_strings": 0,
    "input_format_json_read_numbers_as_strings": 0,
    "input_format_json_read_arrays_as_strings": 0,
    "input_format_json_read_objects_as_strings": 0,
    "input_format_try_infer_integers": 1,
    "type_json_skip_duplicated_paths": 0,  # refused is counted, skipped is not
    # numbers are printed as numbers
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_64bit_floats": 0,
}
_REFUSED = "select place from {given} where text != '' and isNull(accurateCastOrNull(text, 'JSON'))"
_EMPTY_OBJECT = b"\x02{}"


def places(plan: Plan) -> list[int]:
    """Indices of the plan's columns of type JSON."""
    return [index for index, column in enumerate(plan.columns) if column.codec.kind is Kind.JSON]


def settings(client: Client) -> dict[str, Scalar]:
    """With these JSON is read, compared and printed."""
    return {name: value for name, value in _SETTINGS.items() if client.knows(name)}


def selection(plan: Plan) -> str:
    """What is inserted of a block: a column that is merely announced as another type is cast without regard to the settings."""
    columns = [
        f"cast({quoted(column.name)}, '{column.clickhouse}')" if column.codec.kind is Kind.JSON else quoted(column.name)
        for column in plan.columns
    ]
    return ", ".join([*columns, *(quoted(name) for name, _ in plan.wire_metadata)])


def structure(plan: Plan) -> str:
    """The columns of a block, for ClickHouse's table functions."""
    columns = [*((column.name, column.wire) for column in plan.columns), *plan.wire_metadata]
    return ", ".join(f"{quoted(name)} {type_}" for name, type_ in columns)


def exact(plan: Plan, value: str) -> str:
    """An expression: whether the text of a stored value makes the same value again.

    For an event log it is enough that the text stays the same: the source may hold a later value.
    """
    again = f"accurateCastOrNull(toString({value}), 'JSON')"
    equal = f"toString({value}) = toString({again})" if plan.event_log else f"{value} = {again}"
    return f"ifNull({equal}, isNull({value}))"


def stand_in(client: Client, batch: Batch) -> bool:
    """Put NULL, or an empty object, in the place of every text that ClickHouse refuses, and count it. False where there is none.

    Raises UnfitValueError where ``on_unfit = "fail"``.
    """
    plan = batch.plan
    found: list[Unfit] = []
    for index in places(plan):
        rows = _refused(client, plan, batch.columns[index])
        if not rows:
            continue
        key = _key(client, batch, rows[0])
        name = plan.columns[index].name
        if plan.fail_on_unfit:
            raise Rejected(plan, name, REFUSED_JSON, in_key=False, key=key).error
        _replace(batch.columns[index], frozenset(rows))
        found.append(Unfit(name, REFUSED_JSON, len(rows), key))
    batch.unfit += tuple(found)
    return bool(found)


def _refused(client: Client, plan: Plan, column: EncodedColumn) -> list[int]:
    """The rows whose text ClickHouse refuses."""
    rows: list[int] = []
    for first, cells in _runs(column):
        numbers = b"".join(place.to_bytes(8, "little") for place in range(len(cells)))
        body = varint(2) + varint(len(cells)) + _head("place", "UInt64") + numbers + _head("text", "String")
        answer = client.rows_over(
            _REFUSED,
            body + b"".join(cells),
            "place UInt64, text String",
            settings=settings(client),
            subject=plan.table.full_name,
        )
        rows += sorted(first + place for (place,) in answer)
    return rows


def _runs(column: EncodedColumn) -> Iterator[tuple[int, list[bytes]]]:
    """The column's values in runs of bounded size, each with the number of its first row."""
    first, size, cells = 0, 0, list[bytes]()
    for piece in _pieces(column):
        for cell in cut(bytes(read(piece))):
            if cells and size + len(cell) > RUN_BYTES:
                yield first, cells
                first, size, cells = first + len(cells), 0, []
            cells.append(cell)
            size += len(cell)
    if cells:
        yield first, cells


def _pieces(column: EncodedColumn) -> list[bytes | memoryview | Spilled]:
    return [column.values] if column.pieces is None else column.pieces


def _replace(column: EncodedColumn, rows: frozenset[int]) -> None:
    """Each piece holds whole values; one without any of the rows stays as it is."""
    row = 0
    pieces = list(_pieces(column))
    for number, piece in enumerate(pieces):
        cells = list(cut(bytes(read(piece))))
        hit = [place for place in range(len(cells)) if row + place in rows]
        for place in hit:
            cells[place] = b"\0" if column.nulls is not None else _EMPTY_OBJECT
        if hit:
            pieces[number] = b"".join(cells)
        row += len(cells)
    if column.pieces is None:
        column.values = bytes(read(pieces[0]))
    else:
        column.pieces = pieces
    if column.nulls is not None:
        nulls = bytearray(column.nulls)
        for row in rows:
            nulls[row] = 1
        column.nulls = bytes(nulls)


def _key(client: Client, batch: Batch, row: int) -> tuple[bytes, ...]:
    """The identity of a row, as ClickHouse prints it; a decoded row no longer has PostgreSQL's text."""
    plan = batch.plan
    if not plan.identity:
        return ()
    body = varint(len(plan.identity)) + varint(1)
    columns = []
    for place, index in enumerate(plan.identity):
        column, value = plan.columns[index], batch.values(index)[row]
        nulls = None if batch.columns[index].nulls is None else bytes([value.null])
        alone = EncodedColumn(nulls, value.whole, batch.columns[index].spread)
        body += b"".join([_head(f"key_{place}", column.wire), *alone.chunks()])
        columns.append(f"key_{place} {column.wire}")
    shown = ", ".join(f"toString(key_{place})" for place in range(len(plan.identity)))
    (texts,) = client.rows_over(
        f"select {shown} from {{given}}",  # noqa: S608 -- names of ours
        body,
        ", ".join(columns),
        subject=plan.table.full_name,
    )
    return tuple(text.encode(errors="surrogateescape") for text in texts)


def _head(name: str, type_: str) -> bytes:
    return b"".join(varint(len(each.encode())) + each.encode() for each in (name, type_))
