"""What is said of columns that hold less than on the newest ClickHouse."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.plans import SERVER, pipe_of, table_of

from penstock.finding import Severity
from penstock.pipeline.older import NEWEST, narrower
from penstock.plan import compile_plan

if TYPE_CHECKING:
    from penstock.typemap import Capabilities

OLD = replace(SERVER, version="24.8", datetime64=(-2_208_988_800_000_000, 10_413_791_999_999_999), time64=False)


def said(columns: str, server: Capabilities, **settings: Any) -> list[str]:
    pipe = pipe_of(**settings)
    found = narrower(pipe, [compile_plan(table_of(columns), pipe, server)], server)
    assert all(each.severity is Severity.INFO and each.fix for each in found)
    return [f"{each.subject}: {each.problem}" for each in found]


def test_columns_are_grouped_by_how_they_are_narrower() -> None:
    columns = "id int4, born date, died date!, at timestamp, clock time, stop time!"
    assert said(columns, OLD) == [
        "ClickHouse 24.8: Date32 holds 1900-01-01 to 2299-12-31 only: public.t.born, public.t.died",
        "ClickHouse 24.8: DateTime64(6) holds 1900-01-01 to 2299-12-31 only: public.t.at",
        "ClickHouse 24.8: String in place of Time64(6): public.t.clock, public.t.stop",
    ]


def test_json_that_stays_text() -> None:
    assert said("id int4, doc jsonb, docs jsonb[]", OLD, json="json") == [
        "ClickHouse 24.8: String in place of JSON: public.t.doc"
    ]
    types = {"types": {"doc": "JSON"}}
    assert said("id int4, doc jsonb", OLD, options=types) == ["ClickHouse 24.8: String in place of JSON: public.t.doc"]
    assert said("id int4, doc jsonb", OLD) == []


def test_nothing_is_said_on_the_newest_and_on_newer_ones() -> None:
    columns = "id int4, born date, at timestamptz, clock time, note text"
    low, high = NEWEST.date32
    assert said(columns, NEWEST) == []
    assert said(columns, replace(NEWEST, version="99.1", date32=(low - 1000, high + 1000))) == []


def test_a_timestamp_that_is_shown_in_another_time_zone() -> None:
    abroad = replace(NEWEST, utc=False)
    assert said("id int4, at timestamp, all_of_them timestamp[], seen timestamptz", abroad) == []
    kept = compile_plan(table_of("id int4, at timestamp"), pipe_of(), NEWEST)  # as an older Penstock made it
    (found,) = narrower(pipe_of(), [kept], abroad)
    assert found.problem == "DateTime64(6) in place of DateTime64(6, 'UTC'): public.t.at"
    assert "resync" in found.fix.advice


def test_many_columns_are_counted() -> None:
    (problem,) = said("id int4, " + ", ".join(f"c{number} time" for number in range(25)), OLD)
    assert problem.endswith("public.t.c19 and 5 more")
