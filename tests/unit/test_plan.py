"""Tables compiled into plans: columns, NULL, keys, shapes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.plans import plan_of

from penstock.errors import ConfigError, KeyMissingError, SchemaConflictError
from penstock.plan import Shape

COLUMNS = "id int4, tenant int4!, note text, mood enum, price numeric(9,2)!"


def types(**arguments: Any) -> dict[str, tuple[str, str]]:
    return {column.name: (column.clickhouse, column.wire) for column in plan_of(COLUMNS, **arguments).columns}


def test_null_is_possible_where_the_source_or_the_type_needs_it() -> None:
    assert types() == {
        "id": ("Int32", "Int32"),
        "tenant": ("Int32", "Int32"),
        "note": ("Nullable(String)", "Nullable(String)"),
        "mood": ("LowCardinality(Nullable(String))", "Nullable(String)"),
        "price": ("Nullable(Decimal(9, 2))", "Nullable(Decimal(9, 2))"),
    }


def test_without_nullable_no_column_is() -> None:
    assert not any("Nullable" in each for pair in types(nullable=False).values() for each in pair)


def test_a_key_is_never_nullable() -> None:
    [column] = plan_of("amount numeric", ("amount",)).columns
    assert (column.clickhouse, column.nullable) == ("Decimal(76, 38)", False)


def test_the_sorting_key_ends_with_the_sources() -> None:
    plan = plan_of(COLUMNS, ("id", "tenant"), options={"order_by": ["tenant"]})
    assert (plan.key, plan.identity) == ((1, 0), (0, 1))
    plan = plan_of(COLUMNS, full=True, options={"order_by": ["price"]})
    assert (plan.key, plan.identity) == ((4, 0), (0,))


def test_excluded_columns_are_left_out() -> None:
    plan = plan_of(COLUMNS, options={"exclude_columns": ["tenant", "price"]})
    assert [column.name for column in plan.columns] == ["id", "note", "mood"]
    assert plan.source_of(("note", "tenant", "id", "unheard of")) == (1, -1, 0, -1)


def test_metadata() -> None:
    assert plan_of(COLUMNS).column_names[-2:] == ("_version", "_is_deleted")
    assert plan_of(COLUMNS, options={"shape": "null"}).wire_metadata == (
        ("_version", "UInt128"),
        ("_is_deleted", "UInt8"),
    )
    history = plan_of(COLUMNS, options={"shape": "history"})
    assert history.shape is Shape.HISTORY
    assert history.wire_metadata[2:] == (
        ("_operation", "Enum8('copy' = 0, 'insert' = 1, 'update' = 2, 'delete' = 3, 'truncate' = 4)"),
        ("_committed_at", "DateTime64(6, 'UTC')"),
    )


def test_casts() -> None:
    assert plan_of(COLUMNS).casts  # the enum goes as a String
    assert not plan_of("id int4, note text").casts
    assert plan_of("id int4, note text", options={"types": {"note": "LowCardinality(String)"}}).casts


def test_keyless_tables() -> None:
    plan = plan_of(COLUMNS, (), full=True)
    assert plan.keyless
    assert (plan.key, plan.identity) == ((), ())
    assert plan.event_log
    assert not plan_of(COLUMNS, (), full=True, options={"shape": "null"}).event_log
    assert not plan_of(COLUMNS).event_log
    assert plan_of(COLUMNS, (), options={"shape": "history"}).keyless
    with pytest.raises(KeyMissingError) as caught:
        plan_of(COLUMNS, ())
    assert 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL;' in caught.value.hint


@pytest.mark.parametrize(
    ("columns", "key", "options", "said"),
    [
        (COLUMNS, ("id",), {"exclude_columns": ["nope"]}, 'exclude_columns names column "nope"'),
        (COLUMNS, ("id",), {"order_by": ["nope"]}, 'order_by names column "nope"'),
        (COLUMNS, ("id",), {"types": {"nope": "String"}}, 'types names column "nope"'),
        (COLUMNS, ("id",), {"exclude_columns": ["id"]}, "belongs to the key"),
        ("id int4, _version int4", ("id",), {}, 'column "_version"'),
    ],
)
def test_settings_that_do_not_fit(columns: str, key: tuple[str, ...], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        plan_of(columns, key, options=options)
    assert "public.t" in caught.value.message
    assert caught.value.hint


def test_order_by_beyond_what_an_old_row_tells() -> None:
    plan = plan_of(COLUMNS, options={"order_by": ["note"]})
    assert [plan.columns[index].name for index in plan.moving] == ["note"]
    assert plan.at_seam
    assert not plan_of(COLUMNS, full=True, options={"order_by": ["note"]}).at_seam
    assert not plan_of(COLUMNS, options={"order_by": ["note"], "shape": "history"}).moving


def test_order_by_of_a_keyless_table() -> None:
    plan = plan_of(COLUMNS, (), full=True, options={"order_by": ["note"]})
    assert plan.keyless
    assert [plan.columns[index].name for index in plan.key] == ["note"]


def test_names_that_clickhouse_cannot_have_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'"note" and "note\.size"') as caught:
        plan_of("id int4, note text, note.size text")
    assert "exclude_columns" in caught.value.hint
    assert len(plan_of("id int4, note text, note.sizes text").columns) == 3
    with pytest.raises(SchemaConflictError, match="is not UTF-8") as refused:
        plan_of("id int4, caf\udce9 text")
    assert "Rename" in refused.value.hint
