from __future__ import annotations

import pytest

from penstock.demo.equality import Comparison, _Column, _keyed, _merge
from penstock.demo.summary import Summary
from penstock.demo.workload import Counts
from penstock.observe.status import Latencies, PipeStatus

COLUMNS = [_Column("id", "int8", in_key=True), _Column("v", "text", in_key=False)]
ROWS = [("1", "a"), ("10", None), ("2", "ü")]  # ordered by the key's bytes


def compared(source: list[tuple[str, str | None]], destination: list[tuple[str, str | None]]) -> Comparison:
    return _merge("public.t", COLUMNS, _keyed(source, [0]), _keyed(destination, [0]))


def test_equal_rows_are_equal() -> None:
    assert compared(ROWS, list(ROWS)) == Comparison("public.t", 3)
    assert compared([], []).equal


@pytest.mark.parametrize(
    ("destination", "difference"),
    [
        ([("1", "a"), ("2", "ü")], "the row with key 10 is missing in ClickHouse"),
        ([("1", "a"), ("10", None)], "the row with key 2 is missing in ClickHouse"),
        ([("1", "a"), ("10", None), ("11", "x"), ("2", "ü")], "the row with key 11 is only in ClickHouse"),
        ([*ROWS, ("3", "x")], "the row with key 3 is only in ClickHouse"),
        ([("1", "a"), ("10", ""), ("2", "ü")], 'column "v" differs in the row with key 10'),
        ([("1", "A"), ("10", None), ("2", "u")], 'column "v" differs in the row with key 1'),
        ([], "the row with key 1 is missing in ClickHouse"),
    ],
)
def test_the_first_difference_is_named(destination: list[tuple[str, str | None]], difference: str) -> None:
    assert compared(ROWS, destination) == Comparison("public.t", 3, difference)


def test_a_demo_is_only_equal_when_every_table_was_compared_and_equal() -> None:
    def summary(*comparisons: Comparison) -> Summary:
        return Summary(comparisons, Counts(), PipeStatus("shop", "running"), Latencies(), 1.0)

    good, bad = Comparison("public.a", 1), Comparison("public.b", 1, "a row is missing")
    assert summary(good).equal
    assert not summary(good, bad).equal
    assert not summary().equal
