"""``penstock setup`` called within the process, by an operator who answers as he was told to."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.servers.postgres_binaries import PASSWORD, SUPERUSER

from penstock.config import Pipe, parse
from penstock.setup import course
from penstock.setup.asked import Asked
from penstock.setup.record import Record
from penstock.setup.step import State, Step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROLE = "penstock_made"


@dataclass
class Operator:
    """Lets servers restart, or not."""

    restarts: bool = True
    asked: list[str] = field(default_factory=list)

    def tell(self, name: str, subject: str, what: str) -> None:
        pass

    def may_restart(self, what: str) -> bool:
        self.asked.append(what)
        return self.restarts


def pipe_at(host: str, port: int, folder: Path, *, tables: Sequence[str] = ("public.*",), **source: str) -> Pipe:
    """A pipe whose role is not there yet; ``host`` is a name only, its server is on loopback. ``source``: more of that section."""
    dsn = f"host={host} hostaddr=127.0.0.1 port={port} user={ROLE} dbname=postgres connect_timeout=2"
    password = {} if "authentication" in source else {"password": {"file": str(folder / "secret")}}
    return parse(
        {
            "pipe": {"name": "shop"},
            "source": {"dsn": f"{dsn} sslmode={'prefer' if password else 'require'}", **password, **source},
            "destination": {"dsn": "chdb:///nowhere"},
            "tables": {"include": list(tables)},
        },
        origin="test",
    )


def asking(
    pipe: Pipe, choices: dict[str, str] | None = None, dsn: str = f"user={SUPERUSER} password={PASSWORD} sslmode=prefer"
) -> contextlib.closing[Asked]:
    """The source as its administrator sees it."""
    return contextlib.closing(Asked.of(pipe, dsn, choices=choices or {}))


def plan(pipe: Pipe, **choices: str) -> list[Step]:
    """What setup would do."""
    with asking(pipe, choices) as asked:
        return course.look(asked)


def apply(pipe: Pipe, folder: Path, operator: Operator, **choices: str) -> dict[str, str]:
    """What is left to do afterwards."""
    with asking(pipe, choices) as asked:
        return left(course.apply(asked, Record(folder, "shop"), operator))


def undo(pipe: Pipe, folder: Path, operator: Operator) -> None:
    """Take everything back."""
    with asking(pipe) as asked:
        course.undo(asked, Record(folder, "shop"), operator)
    assert Record(folder, "shop").done == []


def left(steps: list[Step]) -> dict[str, str]:
    """The steps that are not right; but that the pipe's file has to name the publication is clear."""
    return {
        step.name: step.state.value for step in steps if step.state is not State.RIGHT and step.name != "definition"
    }


def step_of(steps: list[Step], name: str) -> Step:
    """The one step of that name."""
    (found,) = [step for step in steps if step.name == name]
    return found
