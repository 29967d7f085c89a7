"""From tables that fail to the one value that is enough, by leaving out half of the tables, columns and rows again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.four_ways import Sample

T = TypeVar("T")


def culprit(samples: Sequence[Sample], fails: Callable[[Sample], bool]) -> str:
    """The statement that makes the smallest table that ``fails``, where one value is to blame."""
    sample = next((each for each in samples if fails(each)), None)
    if sample is None:
        return "no table fails by itself"
    rows = list(range(sample.rows))
    names = _halved(list(sample.values), lambda some: fails(sample.narrowed(some, rows)))
    rows = _halved(rows, lambda some: fails(sample.narrowed(names, some)))
    sample = sample.narrowed(names, rows)
    columns = ", ".join(each.definition for each in sample.columns)
    rows_of_texts = zip(*sample.values.values(), strict=True)
    values = ", ".join(f"({row}, {', '.join(map(literal, texts))})" for row, texts in enumerate(rows_of_texts, 1))
    return f"create table t (id int primary key, {columns}); insert into t values {cut(values)};"


def _halved(items: list[T], fails: Callable[[list[T]], bool]) -> list[T]:
    """As few of them as still fail, by halves."""
    while len(items) > 1:
        half = len(items) // 2
        smaller = next((some for some in (items[:half], items[half:]) if fails(some)), None)
        if smaller is None:
            break
        items = smaller
    return items


def literal(text: str | None) -> str:
    """As SQL has it."""
    return "null" if text is None else sql.quote(text)


def cut(text: str) -> str:
    """Without its middle where it is very long."""
    return text if len(text) < 1000 else f"{text[:500]} … {len(text) - 700} characters … {text[-200:]}"
