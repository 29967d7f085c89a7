"""What every command shares: how an error looks, and which exit code it gives."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

import typer

from penstock.errors import ConfigError, NotYetError, PenstockError
from penstock.language import LANGUAGES, choose, said, spoken, wanted
from penstock.observe.log import scrub
from penstock.observe.words import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE, FAILED, USAGE, BLOCKED = 0, 1, 2, 3


def speak(chosen: str) -> None:
    """From here on texts for people are in the chosen language, or in that of the environment. Raises ConfigError for an unknown one."""
    if chosen and chosen not in LANGUAGES:
        raise ConfigError(f"--lang {chosen} is not known", hint=f"Use {', '.join(LANGUAGES)}.")
    choose(chosen or wanted())


@contextlib.contextmanager
def errors_told(*, as_json: bool) -> Iterator[None]:
    """Turn a PenstockError into words on stderr (or JSON on stdout) and an exit code."""
    try:
        yield
    except PenstockError as error:
        tell(error, as_json=as_json)
        raise typer.Exit(USAGE if isinstance(error, ConfigError | NotYetError) else FAILED) from None


def tell(error: PenstockError, *, as_json: bool) -> None:
    """Say what happened and what to do next, without a secret."""
    kind = type(error).__name__.removesuffix("Error")
    if as_json:
        print_json({"error": scrub(spoken(error.message)), "kind": kind, "hint": scrub(spoken(error.hint))})
        return
    happened, then = said("error:"), said("next:")
    typer.echo(f"{typer.style(happened, fg='red', bold=True)} {_plain(spoken(error.message))}", err=True)
    if error.hint:
        typer.echo(f"{typer.style(f'{then:>{len(happened)}}', bold=True)} {_plain(spoken(error.hint))}", err=True)


def _plain(text: str) -> str:
    return shown(scrub(text), keep="\n\t")


def print_json(value: object) -> None:
    """One line of JSON on stdout. A name's byte that is not UTF-8, a lone surrogate, is escaped."""
    line = json.dumps(value, ensure_ascii=False, default=str)
    sys.stdout.write(line.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def say(value: object, sentence: str, *, as_json: bool) -> None:
    """What was done: JSON, or a sentence."""
    if as_json:
        print_json(value)
    else:
        typer.echo(_plain(sentence))
