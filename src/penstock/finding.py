"""A problem that a check found, why it matters, and its fix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from penstock.language import in_language

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACE = re.compile(r"\{(\w+)\}")


class Severity(Enum):
    """How much a finding matters."""

    BLOCKING = "blocking"  # the pipe cannot run
    WARNING = "warning"  # it runs, but something will hurt
    INFO = "info"  # worth knowing


@dataclass(frozen=True, slots=True)
class Fix:
    """The ways to mend something, of which any may be empty; each mends it by itself, but ``advice``, which says what the others do not.

    Among the facts of a provider it is a template: ``{parameter}`` and the like are filled in by ``filled``.
    """

    advice: str = ""  # a sentence: what to do, or what to mind
    sql: tuple[str, ...] = ()  # statements to paste, each with its semicolon
    console: str = ""  # the way through the provider's console
    cli: tuple[str, ...] = ()  # command lines
    terraform: str = ""  # lines of a Terraform definition
    parameter: str = ""  # "name = value", where that is all: several of them are set in one way

    def __bool__(self) -> bool:
        return bool(self.advice or self.sql or self.console or self.cli or self.terraform)

    def __add__(self, other: Fix) -> Fix:
        """First this, then the other."""
        return Fix(
            advice=" ".join(filter(None, (self.advice, other.advice))),
            sql=self.sql + other.sql,
            console="; ".join(filter(None, (self.console, other.console))),
            cli=self.cli + other.cli,
            terraform="\n".join(filter(None, (self.terraform, other.terraform))),
            parameter=self.parameter or other.parameter,
        )

    def filled(self, values: Mapping[str, str]) -> Fix:
        """With ``{name}`` replaced by values; sentences in the chosen language. Braces around anything else stay."""

        def put(text: str) -> str:
            return _PLACE.sub(lambda found: values.get(found[1], found[0]), text)

        return Fix(
            advice=put(in_language(self.advice)),
            sql=tuple(put(each) for each in self.sql),
            console=put(in_language(self.console)),
            cli=tuple(put(each) for each in self.cli),
            terraform=put(self.terraform),
            parameter=put(self.parameter),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, with which object, why it matters, and how to mend it. ``language.said`` makes the texts."""

    check: str  # the check's name, which programs know it by: "wal_level", "replica identity"
    severity: Severity
    subject: str  # the object: a table, a role, a setting
    problem: str  # one sentence: what is the matter
    why: str = ""  # one sentence: what happens if it stays so
    fix: Fix = Fix()
