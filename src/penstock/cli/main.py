"""The commands. Each says in its help what it does, with an example."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import penstock
from penstock.cli.output import BLOCKED, errors_told, say, speak
from penstock.config import load
from penstock.errors import ConfigError, NotYetError
from penstock.observe import log

app = typer.Typer(
    name="penstock",
    help="PostgreSQL → ClickHouse replication in one process: copies the tables, then follows every change.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

PipeFile = Annotated[Path, typer.Argument(metavar="PIPE.toml", help="The pipe's definition.")]
Language = Annotated[
    str, typer.Option("--lang", help="en, ko, ja or zh. Without it: what LANGUAGE, LC_ALL, LC_MESSAGES or LANG say.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def _version(wanted: bool) -> None:
    if wanted:
        from penstock.decode import implementation

        typer.echo(f"penstock {penstock.__version__}, {implementation} decoder")
        raise typer.Exit


@app.callback()
def options(
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print version and decoder.")
    ] = False,
    log_format: Annotated[str, typer.Option("--log-format", help="text or json.")] = "text",
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """Set up logging, and the language of the environment."""
    with errors_told(as_json=False):
        speak("")
        if log_format not in ("text", "json"):
            raise ConfigError(f"--log-format {log_format} is not known", hint="Use text or json.")
        if log_level not in ("debug", "info", "warning", "error"):
            raise ConfigError(f"--log-level {log_level} is not known", hint="Use debug, info, warning or error.")
    log.configure(log_format="json" if log_format == "json" else "text", level=log_level)


@app.command()
def run(
    file: PipeFile,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when everything committed before the start is there.")
    ] = False,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics", metavar="PORT", help="Serve Prometheus metrics there; HOST:PORT for others than loopback."
        ),
    ] = "",
    json_wanted: AsJson = False,
    lang: Language = "",
) -> None:
    """Run one pipe in the foreground.

    Copies what is not copied yet, then follows every change until Ctrl-C. It goes on where it stopped.

    Example: penstock run shop.toml
    """
    from penstock.cli.run import run_pipe

    with errors_told(as_json=json_wanted):
        speak(lang)
        raise typer.Exit(run_pipe(load(file), once=once, as_json_lines=json_wanted, metrics=metrics))


@app.command()
def check(
    file: PipeFile,
    standbys: Annotated[
        list[str] | None,
        typer.Option(
            "--standby",
            metavar="DSN",
            help="A standby to ask whether it would keep the slot: host=… port=…; repeatable.",
        ),
    ] = None,
    json_wanted: AsJson = False,
    lang: Language = "",
) -> None:
    """Ask every question of both ends, and print what is the matter, why it matters, and how to mend it.

    Nothing is changed. The fixes are those of the source's provider: statements, the way through its console, command lines, Terraform.
    Exits with 3 when a finding blocks the pipe.

    Example: penstock check shop.toml
    """
    from penstock.cli.check import show
    from penstock.control.checks import check as check_both
    from penstock.control.store import home

    with errors_told(as_json=json_wanted):
        speak(lang)
        pipe = load(file)
        findings = check_both(pipe, home(), standbys or ())
        show(findings, as_json=json_wanted)
        if any(finding.severity.value == "blocking" for finding in findings):
            raise typer.Exit(BLOCKED)


@app.command()
def setup(  # noqa: PLR0913, PLR0917 -- the command line's options are the function's parameters
    file: PipeFile,
    apply: Annotated[bool, typer.Option("--apply", help="Do what is to do; asks before anything restarts.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what setup did, and nothing else.")] = False,
    as_terraform: Annotated[bool, typer.Option("--terraform", help="Write what is to do as Terraform.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Restart what has to be restarted without asking.")] = False,
    show_password: Annotated[
        bool, typer.Option("--show-password", help="Print a password that is made. Without it, only its file has it.")
    ] = False,
    admin_dsn_env: Annotated[
        str, typer.Option("--admin-dsn-env", help="The environment variable with the administrator's DSN.")
    ] = "PENSTOCK_ADMIN_DSN",
    choices: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=VALUE", help="What only you can know; docs/setup.md lists it."),
    ] = None,
    json_wanted: AsJson = False,
    lang: Language = "",
) -> None:
    """Set the source up: show what has to be changed there; --apply does it, --undo takes it back.

    The administrator's DSN is read from PENSTOCK_ADMIN_DSN, such as "user=postgres password=…"; what it leaves out is as in the
    pipe. Without it the pipe's own role does what it may. What is right already is left as it is.

    Example: penstock setup shop.toml --apply
    """
    from penstock.cli.setup import Wishes
    from penstock.cli.setup import setup as set_up
    from penstock.control.store import home

    with errors_told(as_json=json_wanted):
        speak(lang)
        given = {"terraform": as_terraform, "yes": yes, "as_json": json_wanted, "show_password": show_password}
        wishes = Wishes(apply, undo, admin_dsn_env=admin_dsn_env, choices=tuple(choices or ()), **given)
        raise typer.Exit(set_up(load(file), home(), wishes))


@app.command()
def status(
    pipe: Annotated[str, typer.Argument(metavar="PIPE", help="The pipe's name, or its definition.")],
    json_wanted: AsJson = False,
) -> None:
    """Show how a pipe is, whether it runs or not: each table's state, lag, and what did not fit. Exits with 1 when a table is set aside.

    Example: penstock status shop.toml
    """
    from penstock.cli.status import show
    from penstock.control.statuses import status as status_of
    from penstock.control.store import home

    with errors_told(as_json=json_wanted):
        raise typer.Exit(show(status_of(home(), pipe), as_json_wanted=json_wanted))


@app.command()
def query(
    pipe: Annotated[str, typer.Argument(metavar="PIPE", help="The pipe's name, or its definition.")],
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A select; - reads it from standard input.")],
    output_format: Annotated[str, typer.Option("--format", help="A ClickHouse output format.")] = "PrettyCompact",
    json_wanted: AsJson = False,
) -> None:
    """Read the destination, also while the pipe runs.

    A query of an embedded ClickHouse runs in the pipe's own process: its result is bounded, and it may not have SETTINGS. Table
    functions such as file() and url() reach what the user who runs the pipe can reach, and nobody else may ask.

    Example: penstock query shop.toml "select count() from orders_current"
    """
    from penstock.control.queries import ask_pipe
    from penstock.control.store import home

    with errors_told(as_json=json_wanted):
        text = sys.stdin.read() if sql == "-" else sql
        sys.stdout.buffer.write(ask_pipe(home(), pipe, text, "JSONEachRow" if json_wanted else output_format))
        sys.stdout.buffer.flush()


@app.command()
def resync(
    file: PipeFile,
    tables: Annotated[list[str] | None, typer.Argument(metavar="TABLE...", help="schema.table, one or more.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every table of the pipe.")] = False,
    json_wanted: AsJson = False,
) -> None:
    """Copy tables again, into new ones beside those that are read; each takes its place when it is complete.

    A running pipe does it at once, otherwise the next run. Meanwhile readers find the rows as they were. With --all a pipe whose slot
    is gone, or whose source was restored, begins again.

    Example: penstock resync shop.toml public.orders
    """
    from penstock.control import pipes
    from penstock.control.store import home

    with errors_told(as_json=json_wanted):
        if bool(tables) == every:
            raise ConfigError("resync needs to know which tables", hint="Name them as schema.table; or --all.")
        by = pipes.resync(load(file), home(), tables or ())
        who = "The running pipe copies" if by == "running" else "The next run copies"
        what = ", ".join(tables or ["every table"])
        say({"resync": tables or "all", "by": by}, f"{who} {what} again.", as_json=json_wanted)


@app.command()
def drop(
    file: PipeFile,
    tables: Annotated[bool, typer.Option("--tables", help="Drop the tables in the destination too.")] = False,
    without_state: Annotated[
        bool, typer.Option("--without-state", help="Also where its state is not here, and nobody has it any more.")
    ] = False,
    json_wanted: AsJson = False,
) -> None:
    """Remove a pipe: the slot and the publication that Penstock made, and its state. The pipe must not run.

    Where its state is not in PENSTOCK_HOME it may run from elsewhere: then nothing is removed without --without-state.

    Example: penstock drop shop.toml --tables
    """
    from penstock.control import pipes
    from penstock.control.store import home

    with errors_told(as_json=json_wanted):
        removed = pipes.drop(load(file), home(), tables=tables, without_state=without_state)
        say({"dropped": removed}, f"Removed {', '.join(removed)}.", as_json=json_wanted)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option("--seconds", help="How long; 0: until Ctrl-C.", min=0)] = 60,
    json_wanted: AsJson = False,
) -> None:
    """A PostgreSQL with a live shop, replicated into an embedded ClickHouse while you watch. Cleans up at the end.

    Example: penstock demo --seconds 20
    """
    from penstock.demo.main import demo as run_demo

    with errors_told(as_json=json_wanted):
        raise typer.Exit(run_demo(seconds, as_json=json_wanted))


LATER = {
    "serve": "supervisor, REST API, web pages and metrics",
    "create": "adds a pipe to the supervisor",
    "list": "lists the pipes",
    "pause": "pauses a pipe",
    "resume": "resumes a pipe",
    "add": "adds tables to a pipe",
    "remove": "removes tables from a pipe",
    "edit": "changes a pipe's settings",
    "logs": "shows a pipe's log",
    "verify": "compares both ends",
}


def _later(name: str, what: str) -> None:
    @app.command(name, hidden=True, help=f"Not yet: {what}.", context_settings={"ignore_unknown_options": True})
    def command(words: Annotated[list[str] | None, typer.Argument()] = None) -> None:
        with errors_told(as_json="--json" in (words or [])):
            raise NotYetError(f"penstock {name} ({what}) is not built yet", hint="penstock --help lists what there is.")


for _name, _what in LATER.items():
    _later(_name, _what)


def main() -> None:
    """The ``penstock`` program."""
    app()
