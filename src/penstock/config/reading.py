"""Reads a definition; every problem of the file is said in TOML's words."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from penstock.config.sections import Pipe
from penstock.config.values import SIZE_WORDS
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails


def load(path: Path) -> Pipe:
    """Read a pipe's definition. Raises ConfigError, whose message lists every problem in the file."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors mark it
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path}", hint="Give the path of a pipe's TOML file; examples/shop.toml shows one."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="Check the path and its permissions.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path} is not TOML: {error}", hint="Mend the line; https://toml.io describes the format."
        ) from None
    return parse(raw, origin=str(path))


def parse(raw: dict[str, Any], *, origin: str) -> Pipe:
    """Validate a definition that is already a dict. Raises ConfigError, which names ``origin``."""
    try:
        return Pipe.model_validate(raw)
    except ValidationError as error:
        problems = [_problem(each) for each in error.errors()]
        raise ConfigError(
            f"{origin}: " + "; ".join(problems), hint="docs/configuration.md lists every key with its default."
        ) from None


_WANTED = {
    "tuple_type": 'a list is wanted, as ["…"]',
    "model_type": "a table is wanted, as [section] or { key = … }",
    "dict_type": "a table is wanted, as [section] or { key = … }",
    "int_type": "a whole number is wanted, as 4",
    "bool_type": "true or false is wanted",
    "string_type": 'a text is wanted, as "…"',
    "byte_size": SIZE_WORDS,
    "byte_size_unit": SIZE_WORDS,
}
"""TOML's words for what pydantic calls by Python's, by the kind of error."""


def _problem(error: ErrorDetails) -> str:
    loc, kind, message = error["loc"], error["type"], error["msg"]
    where = ".".join(str(each) for each in loc)
    if kind == "extra_forbidden":
        known = sorted(_known_keys(loc[:-1]))
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        return f"unknown key {where}" + (f", did you mean {near[0]}?" if near else f"; known are {', '.join(known)}")
    if kind == "missing":
        return f"{where} is missing"
    if "instance of Secret" in message or "a secret is" in message:
        return f'{where} = {{ env = "NAME" }} or {{ file = "path" }} says where it is: a secret does not stand in the definition'
    if kind == "literal_error":
        return f"{where}: {_not_one_of(error['ctx']['expected'], error['input'])}"
    return f"{where}: {_WANTED.get(kind) or message.removeprefix('Value error, ')}"


def _not_one_of(expected: str, value: object) -> str:
    """Of keys that take some words only, so that what was written is no secret."""
    known = re.findall(r"'([^']+)'", expected)
    near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    words = ", ".join(f'"{each}"' for each in known)
    return f'"{value}" is none of {words}' + (f'; did you mean "{near[0]}"?' if near else "")


def _known_keys(loc: tuple[int | str, ...]) -> set[str]:
    model: Any = Pipe
    for step in loc:
        if isinstance(model, type) and issubclass(model, BaseModel) and step in model.model_fields:
            model = _model_in(model.model_fields[str(step)].annotation)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return set()
    return {field.alias or name for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> Any:
    """The model inside an annotation such as ``Ssh | None`` or ``dict[str, TableOptions]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
