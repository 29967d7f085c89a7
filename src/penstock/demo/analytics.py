"""Questions a shop asks of data that is a fraction of a second old, and their answers as small tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.columns import Columns
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import RenderableType


FRAME_LINES = 5  # of a table: title, blank, header, rule, blank
MOST_ROWS = 5
GAP = 2


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
        """select formatDateTime(toStartOfMinute(placed_at), '%H:%i', 'UTC'), toString(count()), toDecimalString(sum(total), 2)
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
        """select any(p.name), toString(sum(i.quantity)), toDecimalString(sum(i.quantity * i.price), 2)
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


def panel(answers: Iterable[Answer], *, width: int, lines: int) -> RenderableType:
    """The answers side by side, as many and as long as ``width`` and ``lines`` allow."""
    if lines <= FRAME_LINES:
        return Group()
    tables = [_table(answer, most=lines - FRAME_LINES) for answer in answers]
    room, shown = width, []
    for table in tables:
        room -= Measurement.get(Console(width=width), Console(width=width).options, table).maximum + GAP
        if room >= -GAP or lines >= 2 * (FRAME_LINES + MOST_ROWS):
            shown.append(table)
    return Columns(shown, padding=(0, GAP))


def _table(answer: Answer, *, most: int) -> Table:
    table = Table(
        title=answer.question.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, header_style="dim"
    )
    for place, header in enumerate(answer.question.headers):
        table.add_column(header, justify="right" if place else "left", no_wrap=True)
    for row in answer.rows[: min(most, MOST_ROWS)]:
        table.add_row(*row)
    return table
