"""What is asked about publication and slot, and who waits for the stream, before a pipe runs; part of ``checks.CHECKS``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from psycopg import sql

from penstock.finding import Finding, Fix, Severity
from penstock.language import said
from penstock.postgres import publication as publications
from penstock.postgres.question import listed, quoted
from penstock.postgres.slot import PLUGIN, slot_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.postgres.question import Question
    from penstock.postgres.slot import SlotState

_GIVEN = "penstock"  # what a publication is called that somebody makes for a pipe


def publication(asked: Question) -> Iterator[Finding]:
    """Whether the publication has the tables, or can be given them."""
    pipe = asked.pipe
    given = bool(pipe.source.publication)
    lack = publications.lacking(asked.connection, pipe.publication, asked.tables, owned=not given)
    if given and lack is not None:
        problem = (
            said("it does not publish {tables}", tables=listed(each.full_name for each in lack.tables))
            if lack.exists
            else said("there is no such publication")
        )
        advice = said("Or leave source.publication empty: Penstock makes one, where the role owns the tables.")
        why = said("Only the changes of tables that are published can be followed.")
        fix = Fix(sql=(lack.statement,) if lack.statement else (), advice=advice)
        yield Finding("publication", Severity.BLOCKING, pipe.publication, problem, why, fix)
    elif lack is not None:
        yield from _may_publish(asked, exists=lack.exists)
    for row in asked.fetch("publication", name=pipe.publication):
        yield from _published(asked, row)


def _published(asked: Question, row: Any) -> Iterator[Finding]:
    """What is sent of the tables that are published."""
    name = asked.pipe.publication
    if not row.complete:
        yield Finding(
            "publication",
            Severity.WARNING,
            name,
            said("it does not publish insert, update, delete and truncate alike"),
            said("The destination keeps what the source has changed or deleted in a way that is not published."),
            Fix(sql=(f"ALTER PUBLICATION {quoted(name)} SET (publish = 'insert, update, delete, truncate');",)),
        )
    if row.puballtables:
        yield Finding(
            "publication",
            Severity.INFO,
            name,
            said("it publishes all tables of the database"),
            said("The server decodes and sends the changes of tables too that the pipe leaves out."),
        )
    for table in asked.tables:
        for condition in dict.fromkeys(text for _, text in table.row_filters):
            yield Finding(
                "row_filter",
                Severity.INFO,
                table.full_name,
                said("the publication sends only its rows with {condition}", condition=condition),
                said("Copy and stream leave the other rows out alike."),
            )


def _may_publish(asked: Question, *, exists: bool) -> Iterator[Finding]:
    """Penstock's own publication needs an owner of the tables."""
    role, roots = asked.server.role, asked.server.version_number >= publications.ROOT_PUBLISHING
    members = {oid for table in asked.tables for oid in publications.members(table, roots=roots)}
    others = [each for each in asked.relations if each.oid in members and not each.owned]
    lacks_create = not exists and not asked.server.may_create
    if not others and not lacks_create:
        return
    problem = said("the role may not create a publication in this database")
    if others:
        names = listed(f"{each.nspname}.{each.relname}" for each in others)
        problem = said("the role does not own {tables}", tables=names)
    why = said("Penstock makes and maintains its own publication, and only an owner of a table may publish it.")
    if any(each.of_administrator for each in others):
        fix = _given_by(asked, others[0].owner)
    else:
        fix = _granted(asked, [each.owner for each in others], lacks_create=lacks_create)
    yield Finding("publication", Severity.BLOCKING, role, problem, why, fix)


def _granted(asked: Question, owners: list[str], *, lacks_create: bool) -> Fix:
    statements = [f"GRANT CREATE ON DATABASE {quoted(asked.server.database)} TO {asked.role};"] if lacks_create else []
    statements += [f"GRANT {quoted(owner)} TO {asked.role};" for owner in dict.fromkeys(owners)]
    advice = said(
        "Or create a publication as the owner ({statement}) and name it in the pipe: source.publication; then SELECT is enough.",
        statement=_statement(asked),
    )
    return Fix(sql=tuple(statements), advice=advice)


def _given_by(asked: Question, owner: str) -> Fix:
    """Nobody wants to make the role a member of an administrator."""
    advice = said(
        "As {owner}; then name it in the pipe: source.publication = {name}. SELECT is enough for it.",
        owner=owner,
        name=f'"{_GIVEN}"',
    )
    return Fix(sql=(_statement(asked),), advice=advice)


def _statement(asked: Question) -> str:
    return publications.statement(asked.connection, _GIVEN, asked.tables) or "CREATE PUBLICATION …"


def slot(asked: Question) -> Iterator[Finding]:
    """Whether the slot, where there is one already, can be read from."""
    name = asked.pipe.slot
    state = slot_state(asked.connection, name)
    if state is None:
        return
    problem, fix = _useless(asked, state)
    if problem:
        why = said("A pipe can go on from its own slot only.")
        yield Finding("slot", Severity.BLOCKING, name, problem, why, fix)
        return
    if state.wal_status == "unreserved":
        yield Finding(
            "slot",
            Severity.WARNING,
            name,
            said("it is about to lose its WAL: it holds more than max_slot_wal_keep_size"),
            said("Without its WAL the tables have to be copied again."),
            asked.set("max_slot_wal_keep_size", "200GB", restarts=False),
        )
    if state.active_pid:
        yield Finding(
            "slot",
            Severity.INFO,
            name,
            said("PID {pid} streams from it", pid=state.active_pid),
            said("The pipe is running, or somebody else uses the slot."),
        )


def _useless(asked: Question, state: SlotState) -> tuple[str, Fix]:
    """Why nothing can be read from a slot; empty where it can."""
    if state.lost:
        again = said("The tables are copied again then: penstock resync.")
        return (
            said("it is of no use any more: {reason}", reason=state.lost),
            Fix(sql=(f"SELECT pg_drop_replication_slot('{state.name}');",), advice=again),
        )
    another = Fix(advice=said("Name another slot in source.slot, or leave it empty."))
    if state.plugin != PLUGIN or state.database != asked.server.database:
        found = (state.plugin or "–", state.database or "–")
        return (
            said(
                "it is a slot with {plugin} of database {database}, not with pgoutput of this one",
                plugin=found[0],
                database=found[1],
            ),
            another,
        )
    (known,) = asked.fetch("slot", name=state.name)
    if known[0].get("two_phase"):
        return said("it was made with two_phase: it sends transactions before they are committed"), another
    if state.temporary:
        return said("it is temporary: it ends with the session that made it"), another
    return "", Fix()


# Who waits for the stream

_EVERYBODY = "*"
_METHOD = re.compile(r"\s*(?:(first|any)\s+)?(\d+)\s*\(", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,()"]+)', re.ASCII)


@dataclass(frozen=True, slots=True)
class _Awaited:
    """What ``synchronous_standby_names`` says, which PostgreSQL has found valid (its syncrep_scanner.l and syncrep_gram.y)."""

    method: str  # FIRST: the first of those that are connected; ANY: whichever answer
    count: int
    names: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Self:
        method = _METHOD.match(text)
        found = _NAME.finditer(text, method.end() if method else 0)
        names = tuple(each[2] if each[1] is None else each[1].replace('""', '"') for each in found)
        return cls(((method and method[1]) or "FIRST").upper(), int(method[2]) if method else 1, names)

    def match(self, pipe: str) -> int | None:
        """The place of the first name that is the pipe's."""
        return next((place for place, name in enumerate(self.names) if name == _EVERYBODY or _same(name, pipe)), None)

    def before(self, place: int) -> tuple[str, ...]:
        """Those whose answers count for more than that of the one at this place, or as much."""
        return self.names[: place + 1] if self.method == "FIRST" else self.names

    def naming(self, names: Sequence[str]) -> str:
        """The same with these names, none of which is repeated; no more are waited for than there are."""
        listing = ", ".join(dict.fromkeys(quoted(name) for name in names))
        return f"{self.method} {min(self.count, len(names))} ({listing})" if names else ""


def _same(one: str, other: str) -> bool:
    """As PostgreSQL compares them: it knows upper case of ASCII only."""
    return one.encode("utf-8", "replace").lower() == other.encode("utf-8", "replace").lower()


def _others(names: Sequence[str], pipe: str, followers: Sequence[str]) -> list[str]:
    """The names without the pipe's, and with those that follow the server in place of the asterisk."""
    plain = [name for name in names if name != _EVERYBODY and not _same(name, pipe)]
    more = [name for name in followers if not any(_same(name, each) for each in plain)]
    return plain + (more if _EVERYBODY in names else [])


def synchronous(asked: Question) -> Iterator[Finding]:
    """Whether commits wait for the pipe, as for a standby. Nobody waits for those that a standby sends to."""
    if asked.server.in_recovery:
        return
    (row,) = asked.fetch("synchronous", slot=asked.pipe.slot)
    awaited = _Awaited.read(row.names)
    place = awaited.match(row.pipe)
    if place is None:
        return
    enough = len(_others(awaited.before(place), row.pipe, row.followers)) >= awaited.count
    spared = {"sync": False, "potential": True}.get(row.state, enough)
    name = awaited.names[place]
    yield Finding(
        "synchronous_standby_names",
        Severity.WARNING if spared else Severity.BLOCKING,
        "synchronous_standby_names",
        said("{name} in it matches the pipe: commits wait for the pipe when a standby is missing", name=quoted(name))
        if spared
        else said("{name} in it matches the pipe: every commit waits for the pipe", name=quoted(name)),
        said(
            "Unless its synchronous_commit is off or local, a commit then waits until ClickHouse has its rows, and hangs while the pipe "
            "stands still; the pipe in turn waits for commits that it has to see first."
        ),
        _without_pipe(asked, awaited.naming(_others(awaited.names, row.pipe, row.followers)))
        + Fix(advice=_completed(everybody=_EVERYBODY in awaited.names)),
    )


def _without_pipe(asked: Question, value: str) -> Fix:
    """Providers run their standbys themselves: mostly nobody else may set it there (Azure shows it as read-only)."""
    if asked.provider.name != "generic":
        advice = said(
            "Set it to {value}, where the provider lets you; otherwise ask the provider to.", value=value or "''"
        )
        return Fix(advice=advice)
    statement = sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {};").format(sql.Literal(value))
    return Fix(sql=(statement.as_string(asked.connection), "SELECT pg_reload_conf();"))


def _completed(*, everybody: bool) -> str:
    elsewhere = said("Where a tool for high availability sets it, change it there.")
    away = said("Only the standbys that follow now are named: add those that are away.")
    return f"{away} {elsewhere}" if everybody else elsewhere


CHECKS: tuple[Callable[[Question], Iterator[Finding]], ...] = (publication, slot, synchronous)
