"""Databases, tables and views: made, recognised, refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.fix_clickhouse import batch_of
from tests.fix_postgres import until
from tests.plans import table_of

from penstock.clickhouse import alter, ddl, fit
from penstock.clickhouse.client import quoted
from penstock.clickhouse.writer import Writer
from penstock.errors import ConfigError, DestinationUnavailableError, SchemaConflictError
from penstock.pipeline.alteration import Alteration, let_merge
from penstock.pipeline.checkpoint import TableRecord

if TYPE_CHECKING:
    from tests.fix_clickhouse import Place

COLUMNS = "id int4, note text, amount numeric(12,2), state enum, at timestamptz, clock time"
SHAPES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("id",), {}),
    ((), {}),
    (("id",), {"shape": "history"}),
    ((), {"shape": "history"}),
    (("id",), {"shape": "null"}),
    ((), {"shape": "null"}),
    (("id",), {"order_by": ["at", "state"], "partition_by": "toYYYYMM(at)"}),
    (("id", "note"), {"partition_by": "( id%10,note )"}),
    (("id",), {"types": {"note": "LowCardinality(String)"}, "order_by": ["note"]}),
]


@pytest.mark.parametrize(("key", "options"), SHAPES)
def test_a_table_that_was_made_fits(place: Place, key: tuple[str, ...], options: dict[str, Any]) -> None:
    plan = place.table(COLUMNS, key, full=True, options=options)
    before = place.rows("select uuid from system.tables where database = currentDatabase() or name = 't'")
    ddl.ensure_table(place.client, place.database, plan)
    assert place.rows("select uuid from system.tables where database = currentDatabase() or name = 't'") == before
    row = ("1", "it's", "1.50", "red", "2024-02-29 12:00:00+00", "12:00:00")
    Writer(place.client, place.database).insert(batch_of(plan, row, version=3))


def test_names_of_every_kind(place: Place) -> None:
    names = [
        "dotted.name",
        'quo"ted',
        '"x"',
        "back`tick",
        "`x`",
        "back\\slash",
        "it's",
        "emoji 🐘",
        "a\tb\nc",
        "{a:Int8}",
    ]
    table = table_of("id int4, " + ", ".join(f"c{number} text" for number in range(len(names))))
    renamed = [replace(column, name=name) for column, name in zip(table.columns[1:], names, strict=True)]
    table = replace(table, columns=(table.columns[0], *renamed))
    for name in names:
        plan = place.table(table, options={"target": name, "partition_by": "`it's`"})
        ddl.ensure_table(place.client, place.database, plan)
        ddl.ensure_view(place.client, place.database, plan)
        Writer(place.client, place.database).insert(batch_of(plan, ("1", *names)))
        found = place.client.rows(f"select * from {quoted(place.database)}.{quoted(ddl.view_name(plan.target))}")
        assert found == [(1, *names)]
        ddl.truncate(place.client, place.database, plan, below=1)
        assert place.rows(f"select count() from {{db}}.{quoted(name)}") == [(0,)]


def test_a_database_of_any_name(place: Place) -> None:
    name = f"{place.database} o'`\\.🐘"
    ddl.ensure_database(place.client, name)
    ddl.ensure_database(place.client, name)
    assert place.client.rows("select count() from system.databases where name = {name:String}", {"name": name}) == [
        (1,)
    ]
    place.client.command(f"drop database {quoted(name)}")


def test_the_newest_version_of_a_row_wins(place: Place) -> None:
    plan = place.table("id int4, note text")
    ddl.ensure_view(place.client, place.database, plan)
    writer = Writer(place.client, place.database)
    writer.insert(batch_of(plan, ("1", "new"), ("2", "gone"), version=9))
    writer.insert(batch_of(plan, ("1", "old"), ("3", "copied")))
    writer.insert(batch_of(plan, ("2", "gone"), version=10, deleted=True))
    assert place.rows("select * from {db}.t_current order by id") == [(1, "new"), (3, "copied")]


@pytest.mark.parametrize("options", [{}, {"order_by": ["b"]}, {"partition_by": "a % 3", "order_by": ["a"]}])
def test_a_keyless_table_keeps_equal_rows(place: Place, options: dict[str, Any]) -> None:
    plan = place.table("a int4, b text, c float8", (), full=True, options=options)
    ddl.ensure_view(place.client, place.database, plan)
    writer = Writer(place.client, place.database)
    rows = [("1", None, "NaN"), ("1", "", "0"), (None, None, None)]
    for _ in range(2):  # a replay changes nothing
        for version, row in enumerate([*rows, *rows, *rows], start=1):
            writer.insert(batch_of(plan, row, version=version))
        writer.insert(batch_of(plan, ("1", None, "NaN"), version=20, deleted=True))
        for version, row in enumerate(rows[1:], start=30):
            writer.insert(batch_of(plan, row, version=version, deleted=True))
        writer.insert(batch_of(plan, ("1", "", "0"), version=30))  # an UPDATE that changes nothing
        found = place.rows("select a, b, toString(c) from {db}.t_current")
        assert Counter(found) == {(1, None, "nan"): 2, (1, "", "0"): 3, (None, None, None): 2}
    assert place.rows("select count() from {db}.t_current where a = 1 and b = ''") == [(3,)]
    assert place.rows("select count() from {db}.t_current where c is null") == [(2,)]


def test_a_keyless_table_of_one_column(place: Place) -> None:
    plan = place.table("a int4", (), full=True)
    ddl.ensure_view(place.client, place.database, plan)
    for version in (1, 2):
        Writer(place.client, place.database).insert(batch_of(plan, ("1",), version=version))
    assert place.rows("select * from {db}.t_current") == [(1,), (1,)]


def test_history_keeps_every_version_once(place: Place) -> None:
    plan = place.table("id int4, note text", options={"shape": "history"})
    writer = Writer(place.client, place.database)
    for version in (5, 6, 6):
        writer.insert(batch_of(plan, ("1", f"v{version}"), version=version))
    found = place.rows("select id, note, toString(_operation) from {db}.t final order by _version")
    assert found == [(1, "v5", "copy"), (1, "v6", "copy")]


GOOD = (
    "create table {db}.t (id Int32, amount Nullable(Decimal(12, 2)), _version UInt128, _is_deleted UInt8)"
    " engine = ReplacingMergeTree(_version, _is_deleted) order by id"
)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        (
            "Decimal(12, 2)",
            "Decimal(10, 2)",
            "column amount is Nullable(Decimal(10, 2)), needed Nullable(Decimal(12, 2))",
        ),
        ("amount Nullable(Decimal(12, 2)), ", "", "column amount is missing, needed Nullable(Decimal(12, 2))"),
        ("Decimal(12, 2))", "Decimal(12, 2)) alias 1.5", "column amount is ALIAS, and cannot be written"),
        ("_version UInt128", "_version UInt64", "column _version is UInt64, needed UInt128"),
        ("Replacing", "", "its engine is MergeTree, needed ReplacingMergeTree(_version, _is_deleted)"),
        ("(_version, _is_deleted) order", "(_version) order", "its engine is ReplacingMergeTree(_version), needed"),
        ("(_version, _is_deleted) order", " order", "its engine is ReplacingMergeTree(), needed"),
        (
            "order by id",
            "order by (id, amount) settings allow_nullable_key = 1",
            "its sorting key is id, amount, needed `id`",
        ),
        ("order by id", "order by tuple()", "its sorting key is empty, needed `id`"),
        ("order by id", "partition by id % 10 order by id", "its partition key is id % 10, needed none"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(place: Place, old: str, new: str, difference: str) -> None:
    statement = GOOD.replace("MergeTree(_version, _is_deleted)", "MergeTree") if old == "Replacing" else GOOD
    assert old in statement
    place.run(statement.replace(old, new, 1))
    with pytest.raises(SchemaConflictError) as caught:
        place.table("id int4, amount numeric(12,2)")
    assert difference in caught.value.message
    assert caught.value.message.startswith(f"{place.database}.t exists and does not fit: ")


def test_every_difference_is_listed(place: Place) -> None:
    place.run(GOOD.replace("id Int32", "id Int64").replace("UInt128", "UInt64"))
    with pytest.raises(
        SchemaConflictError, match=r"id is Int64.*; column note is missing.*; column _version is UInt64"
    ):
        place.table("id int4, amount numeric(12,2), note text")


@pytest.mark.parametrize(
    "statement",
    [
        GOOD,
        GOOD.replace("id Int32,", "id Int32, added String default 'x', old Nullable(Int8), m Int32 materialized id,"),
        GOOD.replace("order by id", "order by (id) settings index_granularity = 100"),
        GOOD.replace("order by id", "primary key id order by tuple(id) ttl toDateTime(id) + interval 100 year"),
    ],
)
def test_a_users_table_that_fits_is_used(place: Place, statement: str) -> None:
    place.run(statement)
    plan = place.table("id int4, amount numeric(12,2)")
    Writer(place.client, place.database).insert(batch_of(plan, ("1", "2.50")))
    assert place.rows("select id, toString(amount) from {db}.t") == [(1, "2.5")]


@pytest.mark.parametrize(
    "expression", ["toYYYYMM(nowhere)", "nosuch(id)", "id +", "id) order by (id", "rand()", "a''b"]
)
def test_a_wrong_partition_by_is_a_configuration_error(place: Place, expression: str) -> None:
    with pytest.raises(ConfigError, match=r"public\.t cannot be made with its partition_by: ") as caught:
        place.table("id int4, note text", options={"partition_by": expression})
    assert "toYYYYMM(created_at)" in caught.value.hint
    assert place.rows(f"select count() from system.tables where database = '{place.database}'") == [(0,)]


@pytest.mark.parametrize(
    "statement",
    [
        "create table {db}.t_current (id Int32) engine = MergeTree order by id",
        "create view {db}.t_current as select 1 as id",
        "create materialized view {db}.t_current engine = MergeTree order by id as select 1 as id",
    ],
)
def test_a_view_does_not_replace_what_is_not_its_own(place: Place, statement: str) -> None:
    place.run(statement)
    plan = place.table("id int4")
    with pytest.raises(SchemaConflictError, match=r"t_current exists and is not Penstock's view of t"):
        ddl.ensure_view(place.client, place.database, plan)


def test_a_view_follows_its_plan(place: Place) -> None:
    ddl.ensure_view(place.client, place.database, place.table("id int4, note text"))
    place.run("drop table {db}.t sync")
    ddl.ensure_view(place.client, place.database, place.table("id int4, other int8"))
    assert place.rows(
        f"select name from system.columns where database = '{place.database}' and table = 't_current' order by position"
    ) == [("id",), ("other",)]


def test_truncate_leaves_what_follows_it(place: Place) -> None:
    plan = place.table("id int4, note text")
    writer = Writer(place.client, place.database)
    writer.insert(batch_of(plan, ("1", "copied")))
    writer.insert(batch_of(plan, ("1", "before"), ("2", "before"), version=10 << 64))
    writer.insert(batch_of(plan, ("2", "after"), version=11 << 64 | 3))
    for _ in range(2):
        ddl.truncate(place.client, place.database, plan, below=11 << 64)
    assert place.rows("select id, note from {db}.t") == [(2, "after")]


def test_delete_versions_of_a_range(place: Place) -> None:
    plan = place.table("id int4")
    writer = Writer(place.client, place.database)
    for version in (1, 5, 9, 10):
        writer.insert(batch_of(plan, (str(version),), version=version))
    ddl.delete_versions(place.client, place.database, plan, from_version=5, below=10)
    assert place.rows("select id from {db}.t order by id") == [(1,), (10,)]


def test_truncate_of_a_null_table(place: Place) -> None:
    plan = place.table("id int4", options={"shape": "null"})
    ddl.truncate(place.client, place.database, plan, below=5)


def test_exchange_and_drop(place: Place) -> None:
    old, new = place.table("id int4"), place.table("id int4", options={"target": "fresh"})
    writer = Writer(place.client, place.database)
    writer.insert(batch_of(old, ("1",)))
    writer.insert(batch_of(new, ("2",)))
    ddl.exchange(place.client, place.database, "t", "fresh")
    ddl.drop_table(place.client, place.database, "fresh")
    ddl.drop_table(place.client, place.database, "fresh")
    assert place.rows("select id from {db}.t") == [(2,)]
    assert place.rows(f"select name from system.tables where database = '{place.database}'") == [("t",)]


def test_a_column_gets_a_name_that_older_parts_lack(place: Place) -> None:
    """Both renames in one ALTER would leave parts that ClickHouse cannot read."""
    plan = place.table("id int4, a int4")
    place.run("alter table {db}.t modify setting min_bytes_for_wide_part = 0")
    Writer(place.client, place.database).insert(batch_of(plan, ("1", "5")))
    more = place.plan("id int4, a int4, b int8")
    nothing: dict[str, Any] = {"added": (), "dropped": (), "renamed": (), "retyped": (), "defaults": {}, "own": {}}
    alter.alter(place.client, place.database, more, **nothing | {"added": [(3, more.columns[2])]})
    Writer(place.client, place.database).insert(batch_of(more, ("2", "6", "7")))
    last = place.plan("id int4, b int4")
    for _ in range(2):  # as after a crash
        alter.alter(place.client, place.database, last, **nothing | {"renamed": [("a", "b")]})
    assert place.rows("select id, b, b_before_1 from {db}.t order by id") == [(1, 5, None), (2, 6, 7)]


def test_merges_go_on_after_a_rename(place: Place) -> None:
    """They do not begin within one: it would lose values. What a crash has left stopped goes on too."""
    engine = f"select engine_full from system.tables where database = '{place.database}' and name = 't'"
    plan = place.table("id int4, a int4")
    for number in range(20):
        Writer(place.client, place.database).insert(batch_of(plan, (str(number), "5")))
    before = place.rows(engine)
    last = place.plan("id int4, b int4")
    nothing: dict[str, Any] = {"added": (), "dropped": (), "retyped": (), "defaults": {}, "own": {}}
    alter.alter(place.client, place.database, last, renamed=[("a", "b")], **nothing)
    assert place.rows("select sum(b) from {db}.t") == [(100,)]
    assert place.rows(engine) == before
    place.run(f"alter table {{db}}.t modify setting max_bytes_to_merge_at_max_space_in_pool = {alter.NONE}")
    alter.alter(place.client, place.database, last, renamed=[("a", "b")], **nothing)
    assert place.rows(engine) == before


def test_a_rename_tells_of_a_long_merge_and_keeps_the_tables_own_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alter, "MERGE_SECONDS", 0.2)
    engine = f"select engine_full from system.tables where database = '{place.database}' and name = 't'"
    plan = place.table("id int4, a int4")
    Writer(place.client, place.database).insert(batch_of(plan, ("1", "5")))
    place.run("alter table {db}.t modify setting max_bytes_to_merge_at_max_space_in_pool = 123456789")
    before = place.rows(engine)
    place.run("alter table {db}.t update a = a + sleep(2) where 1 settings mutations_sync = 0")
    until(lambda: place.rows(f"select 1 from system.merges where database = '{place.database}'"))
    last = place.plan("id int4, b int4")
    own = alter.limits(place.client, place.database, "t")
    nothing: dict[str, Any] = {"added": (), "dropped": (), "retyped": (), "defaults": {}, "own": own}
    with pytest.raises(DestinationUnavailableError, match=r"waits for a merge that is \d+ % done"):
        alter.alter(place.client, place.database, last, renamed=[("a", "b")], **nothing)
    assert place.rows(engine) == before
    monkeypatch.undo()
    alter.alter(place.client, place.database, last, renamed=[("a", "b")], **nothing)
    assert place.rows("select id, b from {db}.t") == [(1, 5)]
    assert place.rows(engine) == before


def test_merges_that_a_crash_has_stopped_go_on_by_the_tables_own_limits(place: Place) -> None:
    """Also where nobody finishes the alteration: the table was left out, or its pipe dropped."""
    engines = f"select name, engine_full from system.tables where database = '{place.database}' order by name"
    table = place.table("id int4, a int4").table
    for name in ("none", "other"):
        place.table(table, options={"target": name})
    first, second = "max_bytes_to_merge_at_max_space_in_pool", "max_bytes_to_merge_at_min_space_in_pool"
    place.run(f"alter table {{db}}.t modify setting merge_with_ttl_timeout = 77, {second} = 7777, {first} = 123456789")
    before = place.rows(engines)

    def record(name: str, oid: int) -> TableRecord:
        table_id = fit.identity(place.client, place.database, name)
        limits = alter.limits(place.client, place.database, name)
        step = Alteration(table, 5, name, name, {}, copy_again=False, table_id=table_id, limits=limits)
        return TableRecord(oid, f"public.{name}", name, "", begun=step.to_json(), target_id=table_id)

    records = [record("t", 1), record("none", 2)]
    stop = f"modify setting {first} = {alter.NONE}, {second} = {alter.NONE}"
    place.run(*(f"alter table {{db}}.{name} {stop}" for name in ("t", "none", "other")))
    records[1].begun = ""  # a new copy was asked for since
    for _ in range(2):
        let_merge(place.client, place.database, records)
        after = dict(place.rows(engines))
        assert [after["none"], after["t"]] == [dict(before)["none"], dict(before)["t"]]
        assert after["other"] != dict(before)["other"]  # which is somebody else's
