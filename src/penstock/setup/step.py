"""The model: a step, whether it is needed, how people do it by hand, and how it is taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from penstock.finding import Fix
from penstock.language import N_

if TYPE_CHECKING:
    from collections.abc import Callable

Argument = str | list[str]


class State(Enum):
    """What is left to do about a step."""

    RIGHT = "right"  # nothing
    NEEDED = "needed"  # setup does it
    BY_HAND = "by hand"  # only people can, or ought to


@dataclass(frozen=True, slots=True)
class Back:
    """One thing to do when a step is taken back, as the record keeps it. Doing it twice is the same as once."""

    kind: str  # which of ``course.UNDO`` does it
    what: str  # a statement, a path, an operation
    arguments: dict[str, Argument] = field(default_factory=dict)


NAMES = (
    N_("role"),
    N_("login"),
    N_("connect"),
    N_("tokens"),
    N_("replication"),
    N_("row-level security"),
    N_("schema"),
    N_("tables"),
    N_("later tables"),
    N_("replica identity"),
    N_("publication"),
    N_("definition"),
    N_("reach the source"),
    N_("security group"),
    N_("firewall"),
    N_("private link"),
    N_("endpoint"),
    N_("parameter"),
    N_("parameters"),
    N_("parameter group"),
    N_("attach"),
    N_("restart"),
    N_("high availability"),
    N_("IAM policy"),
    N_("Amazon's API"),
    N_("Azure's API"),
)
"""What steps are called, apart from those that are called as a setting is."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change. ``apply`` makes it, may be repeated, and returns when it has taken effect."""

    name: str  # what programs know it by: "role", "parameter group"
    subject: str  # the object
    what: str  # a sentence: what is right already, what will be done, or what people are to do
    state: State
    fix: Fix = field(default_factory=Fix)  # the same by hand
    restarts: str = ""  # what is not there for a moment meanwhile
    undo_restarts: str = ""  # what is not there for a moment when it is taken back
    back: tuple[Back, ...] = ()  # in the order in which they are to be done
    apply: Callable[[], None] | None = None


def right(name: str, subject: str, what: str) -> Step:
    """A step that nothing is left to do about."""
    return Step(name, subject, what, State.RIGHT)


def by_hand(name: str, subject: str, what: str, fix: Fix) -> Step:
    """A step for people."""
    return Step(name, subject, what, State.BY_HAND, fix)
