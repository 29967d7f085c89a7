"""penstock setup: how a plan looks, and how it is carried out and taken back."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer
from rich.cells import cell_len

from penstock.cli.output import FAILED, print_json
from penstock.errors import ConfigError
from penstock.language import N_, phrase, said, spoken
from penstock.observe.words import shown
from penstock.setup import course, terraform
from penstock.setup.asked import CHOICES, Asked
from penstock.setup.record import Record
from penstock.setup.step import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from penstock.config import Pipe
    from penstock.setup.step import Step

_SIGNS = {
    State.RIGHT: (N_("right"), "green"),
    State.NEEDED: (N_("to do"), "yellow"),
    State.BY_HAND: (N_("by hand"), "blue"),
}
ADMIN_DSN = "PENSTOCK_ADMIN_DSN"
APPLY = N_("penstock setup PIPE.toml --apply does what is to do.")
LEFT = N_("Left for want of a yes: run it again on a terminal, or with --yes.")
BY_HAND = N_("What is left is yours; then: penstock check PIPE.toml")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line asks for."""

    apply: bool = False
    undo: bool = False
    terraform: bool = False
    yes: bool = False
    as_json: bool = False
    show_password: bool = False
    admin_dsn_env: str = ADMIN_DSN
    choices: tuple[str, ...] = ()


def setup(pipe: Pipe, folder: Path, wishes: Wishes) -> int:
    """Show the plan, carry it out, or take it back. The exit code: 1 when something that was asked for was left undone."""
    if wishes.apply + wishes.undo + wishes.terraform > 1:
        raise ConfigError(phrase("--apply, --undo and --terraform are three things"), hint=phrase("Give one of them."))
    asked = Asked.of(pipe, _admin_dsn(wishes), choices=_choices(wishes.choices), show_password=wishes.show_password)
    try:
        if wishes.undo:
            return _undo(asked, Record(folder, pipe.name), wishes)
        if wishes.apply:
            return _apply(asked, Record(folder, pipe.name), wishes)
        steps = course.look(asked)
        if wishes.terraform:
            _print(terraform.document(steps), wishes)
        else:
            some = any(step.state is State.NEEDED for step in steps)
            _show(asked, steps, wishes, hint=APPLY if some else BY_HAND)
        return 0
    finally:
        asked.close()


def _print(document: str, wishes: Wishes) -> None:
    """As it is: it holds names of variables, and no secret."""
    if wishes.as_json:
        print_json({"terraform": document})
    else:
        typer.echo(document)


def _admin_dsn(wishes: Wishes) -> str:
    """From the environment: on a command line everybody on the machine could read it. Empty: the pipe's own role does it."""
    if wishes.admin_dsn_env in os.environ:
        return os.environ[wishes.admin_dsn_env]
    if wishes.admin_dsn_env != ADMIN_DSN:
        raise ConfigError(
            phrase("the environment variable {name} is not set", name=wishes.admin_dsn_env),
            hint=phrase('It is to hold the administrator\'s DSN, such as "user=postgres password=…".'),
        )
    return ""


def _choices(given: Sequence[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, sign, _ in pairs:
        if not sign or name not in CHOICES:
            names = ", ".join(sorted(CHOICES))
            raise ConfigError(
                phrase("--with {name} is not known", name=name),
                hint=phrase("Write NAME=VALUE; names are {names}.", names=names),
            )
    return {name: value for name, _, value in pairs}


class _Terminal:
    """Tells on the terminal, and asks there."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes

    def tell(self, name: str, subject: str, what: str) -> None:
        if not self._wishes.as_json:
            now = said("now")
            typer.echo(f"   {typer.style(now, bold=True)}  {shown(f'{said(name)} {subject}: {spoken(what)}')}")

    def may_restart(self, what: str) -> bool:
        if self._wishes.yes:
            return True
        if not sys.stdin.isatty():
            return False
        question = said("{server} is restarted now, and is not there for a moment. Go on?", server=what)
        return typer.confirm(shown(question), err=True)


def _apply(asked: Asked, record: Record, wishes: Wishes) -> int:
    steps = course.apply(asked, record, _Terminal(wishes))
    left = [step for step in steps if step.state is State.NEEDED]
    hint = LEFT if left else BY_HAND
    _show(asked, steps, wishes, hint=hint)
    return FAILED if left else 0


def _undo(asked: Asked, record: Record, wishes: Wishes) -> int:
    gone = course.undo(asked, record, _Terminal(wishes))
    if wishes.as_json:
        print_json({"taken_back": [{"name": each.name, "subject": each.subject} for each in gone]})
    elif not gone:
        typer.echo(said("There is nothing to take back."))
    return 0


def _show(asked: Asked, steps: Sequence[Step], wishes: Wishes, *, hint: str) -> None:
    if wishes.as_json:
        print_json(
            {
                "provider": asked.provider.name,
                "steps": [_as_json(step) for step in steps],
                **({"passwords": asked.shown} if asked.shown else {}),
            }
        )
        return
    typer.echo(shown(f"{asked.connector.where}: {asked.provider.title}"))
    for step in steps:
        _show_step(step)
    for role, password in asked.shown.items():
        typer.echo(said("The password of {role}: {password}", role=shown(role), password=password))
    if all(step.state is State.RIGHT for step in steps):
        typer.echo(said("Everything is right."))
    else:
        typer.echo(said(hint))


def _show_step(step: Step) -> None:
    sign, colour = _SIGNS[step.state]
    title = said(step.name) if step.name == step.subject else f"{said(step.name)} {step.subject}"
    label = said(sign)
    typer.echo(
        f"{' ' * (8 - cell_len(label))}{typer.style(label, fg=colour, bold=True)}  {shown(f'{title}: {step.what}')}"
    )
    if step.state is State.RIGHT:
        return
    if step.restarts:
        restarts = said("restarts")
        typer.echo(f"          {typer.style(restarts, bold=True)} {shown(step.restarts)}")
    lines = [step.fix.advice, *step.fix.sql, *step.fix.cli, step.fix.console]
    for line in filter(None, lines):
        typer.echo(f"          {shown(line)}")


def _as_json(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "subject": step.subject,
        "state": step.state.value,
        "what": step.what,
        "restarts": step.restarts,
        "fix": asdict(step.fix),
    }
