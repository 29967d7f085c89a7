"""At which version of a table the stream is: found out from a Relation message, what is known, and the catalog of a later time.

Columns are told apart by their attribute numbers, which a Relation message does not have; nothing is ever guessed by name: where more
than one reading is possible there is none, and the table is copied again (postgres.md 24).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from penstock.table import ReplicaIdentity, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from penstock.batch import Relation, RelationColumn
    from penstock.table import Column

_JSON = TypeAdapter(Table)
MOST_DOUBTFUL = 8  # columns of which it is not known whether they were there


def definition(table: Table) -> Table:
    """The table without what changes all the time."""
    return replace(table, estimated_rows=0, estimated_bytes=0)


def to_json(table: Table) -> str:
    """For keeping."""
    return _JSON.dump_json(definition(table)).decode()


def from_json(text: str) -> Table:
    """Read what ``to_json`` wrote."""
    return _JSON.validate_json(text)


def version_at(relation: Relation, known: Table, catalog: Table) -> Table | None:
    """The table as of a Relation message, between what is ``known`` and the ``catalog`` of a later time; None when that is not certain."""
    hidden = {*known.left_out, *catalog.left_out}
    arriving = [column for column in relation.columns if column.name not in hidden]
    if is_like(relation, catalog):
        if not is_like(relation, known) or _numbers(known) == _numbers(catalog):
            return loosened(catalog, known)
        return None  # a column may have been dropped and made again under its name: before these rows, or after them
    if relation.oid != known.oid:  # a leaf, which has numbers of its own
        return known if is_like(relation, known) else None
    found = list(_candidates(arriving, known, catalog))
    if len(found) != 1 or key_numbers(known) != key_numbers(catalog):
        return None
    return _between(relation, [*zip(found[0], arriving, strict=True)], known, catalog)


def same_columns(one: Table, other: Table) -> bool:
    """Whether two versions have the same columns, by number, name and type."""
    return [(each.number, each.name, *type_of(each)) for each in one.columns] == [
        (each.number, each.name, *type_of(each)) for each in other.columns
    ]


def same_column(one: Column, other: Column) -> bool:
    """Whether a column's values are of the same kind in both versions."""
    return (*type_of(one), one.not_null, one.dimensions) == (*type_of(other), other.not_null, other.dimensions)


def is_like(relation: Relation, table: Table) -> bool:
    """Whether a Relation's names and types are those of the table. A leaf may have them in another order."""
    sent = [(each.name, each.type_oid, each.modifier) for each in relation.columns if each.name not in table.left_out]
    ours = [(each.name, *type_of(each)) for each in table.columns]
    return sent == ours if relation.oid == table.oid else sorted(sent) == sorted(ours)


def is_part(relation: Relation, table: Table) -> bool:
    """Whether all that a Relation has are columns of the table, by name and type."""
    ours = {(each.name, *type_of(each)) for each in table.columns}
    return ours.issuperset((each.name, each.type_oid, each.modifier) for each in relation.columns)


def _candidates(arriving: Sequence[RelationColumn], known: Table, catalog: Table) -> Iterator[list[int]]:
    """Every way to number the columns: those that outlived it all are there, new ones came in order, dropped ones may be there still."""
    old, new = by_number(known), by_number(catalog)
    stayed = [number for number in old if number in new]
    later = [number for number in new if number > known.numbers]
    for came in range(len(later) + 1):
        end = later[came] if came < len(later) else catalog.numbers + 1
        doubtful = [each for each in old if each not in new]
        doubtful += [each for each in range(known.numbers + 1, end) if each not in new]
        missing = len(arriving) - len(stayed) - came
        if not 0 <= missing <= len(doubtful) <= MOST_DOUBTFUL:
            continue
        for taken in combinations(doubtful, missing):
            numbers = sorted([*stayed, *later[:came], *taken])
            types = [{type_of(each[number]) for each in (old, new) if number in each} for number in numbers]
            pairs = zip(arriving, types, strict=True)
            if all(not possible or (each.type_oid, each.modifier) in possible for each, possible in pairs):
                yield numbers


def _between(
    relation: Relation, numbered: Sequence[tuple[int, RelationColumn]], known: Table, catalog: Table
) -> Table | None:
    """A version that was neither seen before nor is there still. Its storage is the old one's: what rewrote it is judged at the end."""
    old, new = by_number(known), by_number(catalog)
    columns = []
    for number, each in numbered:
        same = [
            side[number]
            for side in (old, new)
            if number in side and type_of(side[number]) == (each.type_oid, each.modifier)
        ]
        if not same:
            return None
        not_null = all(side[number].not_null for side in (old, new) if number in side)
        stamp = old[number].stamp if number in old else ""
        columns.append(replace(same[0], name=each.name, not_null=not_null, stamp=stamp))
    names = {column.number: column.name for column in columns}
    if any(number not in names for number in key_numbers(known)):
        return None
    identity = ReplicaIdentity(relation.replica_identity)
    kept = {each.name for each in relation.columns if each.in_key or identity is ReplicaIdentity.FULL}
    return replace(
        known,
        columns=tuple(columns),
        key=tuple(names[number] for number in key_numbers(known)),
        replica_identity=identity,
        identity=tuple(column.name for column in columns if column.name in kept),
        numbers=max([known.numbers, *names]),
    )


def loosened(catalog: Table, known: Table) -> Table:
    """A column that could be NULL stays so: there may be NULLs of then."""
    old = by_number(known)
    columns = tuple(
        replace(each, not_null=each.not_null and (each.number not in old or old[each.number].not_null))
        for each in catalog.columns
    )
    return replace(catalog, columns=columns)


def called(old: Table, new: Table) -> Table:
    """The new version under the old name."""
    return replace(new, schema=old.schema, name=old.name)


def by_number(table: Table) -> dict[int, Column]:
    """Columns by their numbers."""
    return {column.number: column for column in table.columns}


def _numbers(table: Table) -> list[int]:
    return [column.number for column in table.columns]


def key_numbers(table: Table) -> list[int]:
    """The numbers of the key's columns."""
    return [table.column(name).number for name in table.key]


def type_of(column: Column) -> tuple[int, int]:
    """A column's type as a Relation message has it."""
    return column.type.oid, column.type.modifier
