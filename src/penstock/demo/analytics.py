"""Questions a shop asks of data that is a fraction of a second old, and their answers as small tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.columns import Columns
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import RenderableType


@dataclass(frozen=True, slots=True)
class Question:
    """A named select over the current views of the session's database; every answer is a text."""

    title: str
    headers: tuple[str, ...]
    select: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question brought."""

    question: Question
    rows: tuple[tuple[str, ...], ...]


QUESTIONS = (
    Question(
        "revenue, last minutes",
        ("minute", "orders", "revenue"),
        """select formatDateTime(toStartOfMinute(placed_at), '%H:%i', 'UTC'), toString(count()), toString(sum(total))
           from orders_current where placed_at > now() - interval 5 minute
           group by toStartOfMinute(placed_at) order by toStartOfMinute(placed_at) desc limit 5""",
    ),
    Question(
        "orders by status",
        ("status", "orders"),
        """select toString(status), toString(count()) from orders_current
           group by status order by count() desc limit 6""",
    ),
    Question(
        "top products, last minutes",
        ("product", "sold", "revenue"),
        """select any(p.name), toString(sum(i.quantity)), toString(sum(i.quantity * i.price))
           from order_items_current as i
           join orders_current as o on o.id = i.order_id
           join products_current as p on p.sku = i.sku
           where o.placed_at > now() - interval 5 minute
           group by i.sku order by sum(i.quantity * i.price) desc limit 5""",
    ),
)


def ask(query: Callable[[str], Iterable[Sequence[object]]]) -> list[Answer]:
    """Ask every question. ``query`` runs a select in the pipe's database and gives its rows."""
    return [
        Answer(question, tuple(tuple(str(value) for value in row) for row in query(question.select)))
        for question in QUESTIONS
    ]


def panel(answers: Iterable[Answer]) -> RenderableType:
    """The answers side by side, or one below the other where the terminal is narrow."""
    return Columns([_table(answer) for answer in answers], padding=(0, 2))


def _table(answer: Answer) -> Table:
    table = Table(
        title=answer.question.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="dim"
    )
    for place, header in enumerate(answer.question.headers):
        table.add_column(header, justify="right" if place else "left", no_wrap=True)
    for row in answer.rows:
        table.add_row(*row)
    return table
