"""The same as Terraform: one document of the steps that are left, and the words that Terraform takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from penstock.setup.step import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.setup.step import Step

_SOURCES = {"postgresql": "cyrilgdn/postgresql", "aws": "hashicorp/aws", "azurerm": "hashicorp/azurerm"}


def document(steps: Sequence[Step]) -> str:
    """A Terraform file of what is not right yet; what has no Terraform of its own stands there as a comment."""
    left = [step for step in steps if step.state is not State.RIGHT]
    bodies = [_body(step) for step in left]
    used = [name for name in _SOURCES if any(f'resource "{name}_' in body for body in bodies)]
    providers = "\n".join(f'    {name} = {{ source = "{_SOURCES[name]}" }}' for name in used)
    head = f"terraform {{\n  required_providers {{\n{providers}\n  }}\n}}" if used else ""
    variable = (
        'variable "penstock_password" {\n  type      = string\n  sensitive = true\n}'
        if any("var.penstock_password" in body for body in bodies)
        else ""
    )
    return "\n\n".join(filter(None, [head, variable, *bodies])) or "# Everything is right."


def _body(step: Step) -> str:
    title = f"# {step.name} {step.subject}: {step.what}"
    instead = [step.fix.advice, *step.fix.sql, *step.fix.cli] if not step.fix.terraform else []
    lines = [line for text in (title, *(f"# {each}" for each in instead if each)) for line in text.splitlines()]
    return "\n".join(
        [*(line if line.startswith("#") else f"# {line}" for line in lines), *filter(None, [step.fix.terraform])]
    )


def resource(kind: str, label: str, values: Mapping[str, object]) -> str:
    """One resource. A value that begins with ``var.`` or names a resource is an expression; others are literals."""
    width = max(map(len, values))
    lines = [f"  {name.ljust(width)} = {_value(value)}" for name, value in values.items()]
    return "\n".join([f'resource "{kind}" {_value(_label(label))} {{', *lines, "}"])


def _label(name: str) -> str:
    """A name that Terraform takes: letters, digits, _ and -."""
    kept = "".join(each if each.isascii() and (each.isalnum() or each in "_-") else "_" for each in name)
    return kept if kept[:1].isalpha() else f"_{kept}"


class Expression(str):
    """Terraform's own words, which are not quoted."""

    __slots__ = ()


def _value(value: object) -> str:
    if isinstance(value, Expression):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("${", "$${").replace("%{", "%%{") if isinstance(value, str) else text
