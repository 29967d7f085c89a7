"""What docs/changes.md says happens: its examples are carried out, and its answers are ClickHouse's.

``PENSTOCK_WRITE_ANSWERS=1`` writes them into the page.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import QUICK, streaming
from tests.scripts import ROOT

if TYPE_CHECKING:
    from tests.fix_pipe import Case

PAGE = ROOT / "docs" / "changes.md"
EXAMPLE = re.compile(
    r"^### (?P<title>[^\n]+)\n(?:(?!^```|^#).*\n)*?"
    r"```sql\n(?P<options>(?:-- .*\n(?<!runs:\n))*)(?P<given>(?:.*\n)*?)-- while the pipe runs:\n(?P<then>(?:.*\n)*?)```\n\n"
    r"`(?P<question>select [^`]+)`\n\n(?P<answer>(?:\|.*\n)+)",
    re.MULTILINE,
)
LEAST = 20


@dataclass(frozen=True)
class Example:
    title: str
    options: str
    given: list[str]
    then: list[str]
    question: str
    answer: str


def statements(text: str) -> list[str]:
    return [each for each in re.split(r";\n", text) if each.strip()]


def examples() -> list[Example]:
    return [
        Example(
            title=found["title"],
            options=re.sub(r"^-- ", "", found["options"], flags=re.MULTILINE),
            given=statements(found["given"]),
            then=statements(found["then"]),
            question=found["question"],
            answer=found["answer"],
        )
        for found in EXAMPLE.finditer(PAGE.read_text())
    ]


def answer(case: Case, question: str) -> str:
    assert case.server is not None
    return case.server.query(f"{question} format Markdown", database="shop")


def carried_out(case: Case) -> list[Example]:
    """Every example, up to a pipe that has caught up."""
    every = examples()
    assert len(every) >= LEAST
    assert len(every) == PAGE.read_text().split("## Examples")[1].count("### "), "an example is written otherwise"
    tables = 0
    with case.database.connect() as connection:
        for each in every:
            for statement in each.given:
                connection.execute(statement)  # type: ignore[call-overload]
                tables += statement.startswith("create table") and " partition of " not in statement
    case.define(
        tables='include = ["*.*"]',
        settings=f'{QUICK}\non_type_change = "resync"',
        options="\n".join(each.options for each in every),
    )
    with case.running():
        streaming(case, tables)
        for each in every:
            with case.database.connect() as connection:
                for statement in each.then:
                    connection.execute(statement)  # type: ignore[call-overload]
        if "PENSTOCK_WRITE_ANSWERS" not in os.environ:
            for each in every:
                case.wait_until(
                    lambda each=each: seen(case, each) == each.answer,  # type: ignore[misc]
                    f"{each.title}: the answer is\n{each.answer}",
                    20,
                    lambda each=each: f"\n{seen(case, each)}",  # type: ignore[misc]
                )
    return every


def seen(case: Case, example: Example) -> str:
    try:
        return answer(case, example.question)
    except Exception as error:  # it is not there yet
        return str(error)


@pytest.mark.pg("== 15")
def test_the_examples_are_so(served: Case) -> None:
    every = carried_out(served)
    if "PENSTOCK_WRITE_ANSWERS" in os.environ:
        served.once()
        text = PAGE.read_text()
        for each in every:
            question = f"`{each.question}`\n\n"
            text = text.replace(question + each.answer, question + answer(served, each.question))
        PAGE.write_text(text)


@pytest.mark.slow
@pytest.mark.pg("!= 15")
def test_the_examples_are_so_everywhere(served: Case) -> None:
    carried_out(served)
