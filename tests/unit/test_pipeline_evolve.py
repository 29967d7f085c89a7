"""What a Relation message means for a table that was copied."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from tests.plans import TABLE_OID, plan_of

from penstock.batch import Relation, RelationColumn
from penstock.errors import SchemaConflictError
from penstock.pipeline.evolve import change, fingerprint, tuple_source

if TYPE_CHECKING:
    from penstock.plan import Plan

PLAN = plan_of("id int4, note text, amount numeric(10,2)")


def relation(*names: str, identity: str = "d", keys: tuple[str, ...] = ("id",)) -> Relation:
    modifiers = {column.name: column.type.modifier for column in PLAN.table.columns}
    columns = tuple(RelationColumn(name, 1, modifiers.get(name, -1), name in keys) for name in names)
    return Relation(TABLE_OID, "public", "t", identity, columns)


def test_columns_are_found_in_any_order_and_left_out_ones_skipped() -> None:
    assert tuple_source(relation("amount", "id", "note"), PLAN) == (2, 0, 1)
    partial = plan_of("id int4, note text, amount numeric(10,2)", options={"exclude_columns": ["note"]})
    assert tuple_source(relation("id", "note", "amount"), partial) == (0, -1, 1)


def test_changes_set_the_table_aside() -> None:
    with pytest.raises(SchemaConflictError, match='column "more" is new'):
        tuple_source(relation("id", "note", "amount", "more"), PLAN)
    with pytest.raises(SchemaConflictError, match='column "amount" no longer comes'):
        tuple_source(relation("id", "note"), PLAN)
    with pytest.raises(SchemaConflictError, match='replica identity no longer holds column "id"'):
        tuple_source(relation("id", "note", "amount", keys=("note",)), PLAN)
    other = relation("id", "note", "amount")
    wider = replace(other, columns=(replace(other.columns[0], type_oid=20), *other.columns[1:]))
    with pytest.raises(SchemaConflictError, match='column "id" has another type'):
        tuple_source(wider, PLAN)


def test_identities_that_still_hold_the_key_are_fine() -> None:
    assert tuple_source(relation("id", "note", "amount", identity="f", keys=()), PLAN) == (0, 1, 2)
    assert tuple_source(relation("id", "note", "amount", identity="n", keys=()), PLAN) == (0, 1, 2)


def test_a_keyless_table_needs_the_full_identity() -> None:
    keyless = plan_of("id int4, note text, amount numeric(10,2)", (), full=True)
    assert tuple_source(relation("id", "note", "amount", identity="f"), keyless) == (0, 1, 2)
    with pytest.raises(SchemaConflictError, match="replica identity"):
        tuple_source(relation("id", "note", "amount", identity="d", keys=()), keyless)


def test_the_fingerprint_tells_tables_apart() -> None:
    marks = {
        fingerprint(PLAN),
        fingerprint(plan_of("id int4, note text, amount numeric(12,2)")),
        fingerprint(plan_of("id int4, remark text, amount numeric(10,2)")),
        fingerprint(plan_of("id int4, note text, amount numeric(10,2)", options={"shape": "history"})),
    }
    assert len(marks) == 4
    assert fingerprint(PLAN) == fingerprint(plan_of("id int4, note text, amount numeric(10,2)"))


def widened() -> list[tuple[str, str, bool]]:
    page = (Path(__file__).resolve().parents[2] / "docs" / "changes.md").read_text()
    return [
        (one, other, answer == "widened")
        for one, other, answer in re.findall(
            r"^\| ([a-z][\w (),]*) \| ([a-z][\w (),]*) \| (widened|not) \|$", page, re.MULTILINE
        )
    ]


def test_the_page_says_which_types_are_widened() -> None:
    """Also that ClickHouse's type changes, or holds all the values as it is."""
    short = {
        "smallint": "int2",
        "integer": "int4",
        "bigint": "int8",
        "real": "float4",
        "double precision": "float8",
        "varchar(10)": "varchar(10)",
        "varchar(20)": "varchar(20)",
    }
    assert len(widened()) >= 18
    for one, other, is_widened in widened():
        plans = [numbered(plan_of(f"id int4, v {short.get(each, each)}"), each) for each in (one, other)]
        todo = change(*plans)
        assert (todo.refused, todo.again) == ("" if is_widened else "v", ""), (one, other)


def numbered(plan: Plan, sql: str) -> Plan:
    """With a type of its own: the tables of these tests have the same oid for all."""
    length = re.fullmatch(r"varchar\((\d+)\)", sql)
    *rest, last = plan.table.columns
    kind = replace(
        last.type, oid=crc32(last.type.name.encode()), modifier=int(length[1]) + 4 if length else last.type.modifier
    )
    return replace(plan, table=replace(plan.table, columns=(*rest, replace(last, type=kind))))


def test_a_partition_that_was_away_may_have_other_rows() -> None:
    """What was not looked at before says nothing; and where rows of lost partitions stay, what it brings along is read."""
    parts = {"partitioned": True, "storage": ((7, 70), (8, 80))}
    old = replace(PLAN, table=replace(PLAN.table, **parts, joined=((7, " 500"), (8, " 500"))))
    new = replace(PLAN, table=replace(PLAN.table, **parts, joined=((7, " 600"), (8, " 500"))))
    assert change(old, old) == change(replace(PLAN, table=replace(PLAN.table, **parts)), new)
    assert change(old, new).again == "a partition was detached, and attached again"
    assert change(old, new, ignore_lost=True).attached == (7,)
