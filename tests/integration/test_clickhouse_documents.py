"""Columns of type JSON: what ClickHouse keeps, what it refuses, and what it can give back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.fix_clickhouse import batch_of

from penstock.batch import Unfit
from penstock.clickhouse import documents, lookup
from penstock.clickhouse.writer import Writer
from penstock.errors import UnfitValueError

if TYPE_CHECKING:
    from tests.fix_clickhouse import Place

    from penstock.plan import Plan

KEPT = {
    "{}": "{}",
    '{"b": 1, "a": {"y": "x", "c": [1, 2]}}': '{"a":{"c":[1,2],"y":"x"},"b":1}',
    '{"a": null, "b": [], "c": {}, "d": [null]}': '{"b":[],"d":[null]}',
    '{"a": [1, "x", true, {"b": 2.5}, [null]], "b": [true, 1], "c": [true, "x"]}': (
        '{"a":[1,"x",true,{"b":2.5},[null]],"b":[true,1],"c":[true,"x"]}'
    ),
    '{"a": "2024-01-01", "b": "2024-01-01 12:00:00", "c": "1", "d": "true"}': (
        '{"a":"2024-01-01","b":"2024-01-01 12:00:00","c":"1","d":"true"}'
    ),
    '{"a": 9223372036854775807, "b": 18446744073709551615, "c": -9223372036854775808}': (
        '{"a":9223372036854775807,"b":18446744073709551615,"c":-9223372036854775808}'
    ),
    '{"a": 0.1234567890123456789, "b": 1.50}': '{"a":0.12345678901234568,"b":1.5}',
    '{"a": "\\u0000", "b": "\\ud83d\\ude00", "c": "\\"\\\\"}': '{"a":"\\u0000","b":"😀","c":"\\"\\\\"}',
    '{"": 1, "a.b": 2, "c d": 3}': '{"":1,"a":{"b":2},"c d":3}',
    '{"a":' * 900 + "1" + "}" * 900: '{"a":' * 900 + "1" + "}" * 900,
}
REFUSED = [
    '{"a": 1, "a": 2}',
    '{"a": {"b": 1}, "a.b": 2}',
    '{"a": [{"b": 1, "b": 2}]}',
    '{"a": 1e400}',
    '{"a": "\\ud83d"}',
    '{"a":' * 1100 + "1" + "}" * 1100,
]
INEXACT = ['{"a": 1.0}', '{"a": -0.0}', '{"a": 1e20}', '{"a": [{"b": 3.0}]}']
"""What comes back as a text that would be read as another value."""


def table(place: Place, columns: str = "id int4, a jsonb", **settings: object) -> Plan:
    return place.table(columns, json="json", **settings)


def stored(place: Place, column: str = "a") -> list[str | None]:
    return [text for (text,) in place.rows(f"select toString({column}) from {{db}}.t order by id")]


def test_objects_arrive(place: Place) -> None:
    plan = table(place)
    assert plan.columns[1].clickhouse == "Nullable(JSON)"
    batch = batch_of(plan, *((str(row), text) for row, text in enumerate(KEPT)), ("99", None))
    Writer(place.client, place.database).insert(batch)
    assert batch.unfit == ()
    assert stored(place) == [*KEPT.values(), None]


@pytest.mark.parametrize("nullable", [True, False])
def test_what_clickhouse_refuses_is_counted_and_stops_no_insert(
    place: Place, nullable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "RUN_BYTES", 100)
    plan = place.table("id int4, part bytea, a json, b json!", ("part", "id"), json="json", nullable=nullable)
    rows: list[tuple[str | None, ...]] = [("0", "\\x00", '{"x": 1}', '{"y": 2}'), ("1", "\\x01", None, "[1]")]
    rows += [(str(row), "\\x27", text, '{"z": 1}') for row, text in enumerate(REFUSED, start=2)]
    rows += [("50", "\\x00", '{"x": 2}', REFUSED[0])]
    batch = batch_of(plan, *rows)
    writer = Writer(place.client, place.database)
    writer.insert(batch)
    expected = (
        Unfit("b", "no object", 1, (b"\\x01", b"1")),
        Unfit("a", "refused by JSON", len(REFUSED), (b"'", b"2")),
        Unfit("b", "refused by JSON", 1, (b"\0", b"50")),
    )
    assert batch.unfit == expected
    writer.insert(batch)  # again, as after an answer that was lost
    assert batch.unfit == expected
    nothing = None if nullable else "{}"
    last = ['{"x":2}']
    assert place.rows("select toString(a) from {db}.t final order by id") == [
        (each,) for each in ['{"x":1}', nothing, *[nothing] * len(REFUSED), *last]
    ]
    assert place.rows("select toString(b) from {db}.t final order by id") == [
        (each,) for each in ['{"y":2}', nothing, *['{"z":1}'] * len(REFUSED), nothing]
    ]


@pytest.mark.parametrize("text", ["[1]", REFUSED[0]])
def test_refused_json_fails_where_it_is_to_and_its_row_is_named(place: Place, text: str) -> None:
    plan = table(place, on_unfit="fail")
    with pytest.raises(UnfitValueError, match=r'column "a" of public\.t, in the row with id = 7, holds') as caught:
        Writer(place.client, place.database).insert(batch_of(plan, ("6", "{}"), ("7", text)))
    assert text not in caught.value.message
    assert stored(place) == []


def test_a_stored_value_comes_back_only_if_it_would_be_the_same_again(place: Place) -> None:
    texts = [text for text in KEPT if "0.12345" not in text and "null" not in text]
    plan = table(place)
    rows = [(str(row), text) for row, text in enumerate([*texts, *INEXACT])]
    Writer(place.client, place.database).insert(batch_of(plan, *rows, ("98", None), version=9))
    ids = [(id_.encode(),) for id_, _ in rows] + [(b"98",)]
    found = lookup.newest(place.client, place.database, plan, ids, [1])
    assert len(found) == len(ids)
    assert found[b"98",].values[1].null
    assert [row[0] for row in rows if 1 not in found[row[0].encode(),].values] == [
        str(len(texts) + row) for row in range(len(INEXACT))
    ]
    for id_, text in rows[: len(texts)]:
        value = found[id_.encode(),].values[1]
        assert value.whole.endswith(KEPT[text].replace("/", "\\/").encode())


def test_what_a_key_a_keyless_table_and_an_array_hold_stays_text(place: Place) -> None:
    keyed = place.plan("id jsonb, a jsonb", json="json")
    assert [column.clickhouse for column in keyed.columns] == ["String", "Nullable(JSON)"]
    keyless = place.plan("a jsonb, b int4", (), full=True, json="json")
    assert keyless.columns[0].clickhouse == "Nullable(String)"
    array = table(place, "id int4, a jsonb[]")
    text = '{"{\\"a\\": 1, \\"a\\": 2}",NULL,1}'
    Writer(place.client, place.database).insert(batch_of(array, ("1", text)))
    assert place.rows("select a from {db}.t") == [(['{"a": 1, "a": 2}', None, "1"],)]
