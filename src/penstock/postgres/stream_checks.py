"""What is asked about publication, slot and WAL before a pipe runs; part of ``checks.CHECKS``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from penstock.finding import Finding, Fix, Severity
from penstock.language import said
from penstock.observe.words import duration, size
from penstock.postgres import publication as publications
from penstock.postgres.question import listed, quoted
from penstock.postgres.slot import PLUGIN, slot_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres.question import Question
    from penstock.postgres.slot import SlotState

ENOUGH_KEEP_BYTES = 100 << 30  # what the providers' guides ask for
KEEP_SECONDS = 2 * 86_400.0
MEASURED_SECONDS = 0.5
"""A shorter time says nothing of how much WAL is written."""
LONG_SECONDS = 60.0
"""After so long a transaction is mentioned: slot and copy wait for it."""
_WAL_STATISTICS = 14
_MOST_SHOWN = 5


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
        fix = Fix(sql=(lack.statement,), advice=advice)
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
    statements = []
    if not exists and not asked.server.may_create:
        statements.append(f"GRANT CREATE ON DATABASE {quoted(asked.server.database)} TO {asked.role};")
    statements += [f"GRANT {quoted(owner)} TO {asked.role};" for owner in dict.fromkeys(each.owner for each in others)]
    if not statements:
        return
    problem = said("the role may not create a publication in this database")
    if others:
        names = listed(f"{each.nspname}.{each.relname}" for each in others)
        problem = said("the role does not own {tables}", tables=names)
    made = publications.statement(asked.connection, "penstock", asked.tables)
    yield Finding(
        "publication",
        Severity.BLOCKING,
        role,
        problem,
        said("Penstock makes and maintains its own publication, and only an owner of a table may publish it."),
        Fix(
            sql=tuple(statements),
            advice=said(
                "Or create a publication as the owner ({statement}) and name it in the pipe: source.publication; then SELECT is enough.",
                statement=made,
            ),
        ),
    )


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
    if state.temporary:
        return said("it is temporary: it ends with the session that made it"), another
    return "", Fix()


# What slot and copy wait for


def long_transactions(asked: Question) -> Iterator[Finding]:
    """Who has been in a transaction for long: a slot is made, and a copy begins, when all that ran at that moment have ended."""
    rows = asked.fetch("long_transactions", seconds=LONG_SECONDS)
    if rows:
        shown = [
            said(
                "PID {pid} ({role}, database {database}, {application}) for {time}",
                pid=row.pid,
                role=row.role,
                database=row.database,
                application=row.application or "–",
                time=duration(row.seconds),
            )
            for row in rows
        ]
        yield Finding(
            "long_transactions",
            Severity.WARNING,
            said("the server"),
            said("transactions run for long: {names}", names=listed(shown, _MOST_SHOWN)),
            said("A slot is made, and a copy begins, only when they have ended; until then WAL is kept."),
            Fix(
                advice=said("Let them end, or end them."),
                sql=tuple(f"SELECT pg_terminate_backend({row.pid});" for row in rows),
            ),
        )


def prepared_transactions(asked: Question) -> Iterator[Finding]:
    """Prepared transactions hold up slot and copy as others do, and no session shows them."""
    for row in asked.fetch("old_prepared", seconds=LONG_SECONDS):
        yield Finding(
            "prepared_transactions",
            Severity.WARNING,
            row.gid,
            said(
                "a transaction of {owner} is prepared for {time} and not finished",
                owner=row.owner,
                time=duration(row.seconds),
            ),
            said("A slot is made, and a copy begins, only when it has ended; until then WAL is kept."),
            Fix(
                advice=said(
                    "Let its application finish it, or decide in database {database}: COMMIT PREPARED {gid}; or ROLLBACK PREPARED {gid};",
                    database=row.database,
                    gid=row.gid_sql,
                )
            ),
        )


# WAL


def wal_kept(asked: Question) -> Iterator[Finding]:
    """Whether WAL is kept for long enough when the pipe stands still. Asked last: the rate is measured meanwhile."""
    setting = asked.settings.get("max_slot_wal_keep_size")
    if setting is None or setting.number < 0:
        return
    keep, rate = setting.number << 20, _wal_rate(asked)
    if keep >= max(rate * KEEP_SECONDS, ENOUGH_KEEP_BYTES):
        return
    short = rate * KEEP_SECONDS > keep
    problem = said("it is {size}", size=size(keep))
    if rate >= 1:
        problem = said(
            "it is {size}; at the {rate} of WAL a second that are written now, that is {time}",
            size=size(keep),
            rate=size(rate),
            time=duration(keep / rate),
        )
    yield Finding(
        "wal_kept",
        Severity.WARNING if short or keep < _LITTLE_BYTES else Severity.INFO,
        "max_slot_wal_keep_size",
        problem,
        said("A pipe that stands still for longer than that loses its slot, and its tables are copied again."),
        asked.set("max_slot_wal_keep_size", _enough(rate), restarts=False),
    )


_LITTLE_BYTES = 4 << 30


def _enough(rate: float) -> str:
    return f"{max(200, int(rate * KEEP_SECONDS * 1.5) >> 30)}GB"


def _wal_rate(asked: Question) -> float:
    """Bytes of WAL a second: the larger one of what was written since the first question, and the average that the server keeps."""
    rates = [0.0]
    elapsed = time.monotonic() - asked.asked_at
    if elapsed >= MEASURED_SECONDS:
        (row,) = asked.fetch("wal_since", lsn=asked.server.lsn)
        rates.append(row.bytes / elapsed)
    if asked.major >= _WAL_STATISTICS:
        rates += [row.bytes_per_second for row in asked.fetch("wal_average") if row.bytes_per_second]
    return max(rates)


def timeouts(asked: Question) -> Iterator[Finding]:
    """Time limits of the server's that concern slots."""
    sender, idle = asked.settings["wal_sender_timeout"], asked.settings.get("idle_replication_slot_timeout")
    if sender.number == 0:
        yield Finding(
            "wal_sender_timeout",
            Severity.INFO,
            "wal_sender_timeout",
            said("it is 0: the server does not notice by itself that a reader is gone"),
            said("Penstock sets a limit for its own session; slots of others may stay busy after a cut."),
        )
    if idle is not None and 0 < idle.number < KEEP_SECONDS:
        yield Finding(
            "idle_slots",
            Severity.WARNING,
            "idle_replication_slot_timeout",
            said("a slot that nobody reads from for {time} is invalidated", time=duration(idle.number)),
            said("A pipe that stands still for that long has to copy its tables again."),
            asked.set("idle_replication_slot_timeout", "0", restarts=False),
        )


CHECKS: tuple[Callable[[Question], Iterator[Finding]], ...] = (
    publication,
    slot,
    timeouts,
    long_transactions,
    prepared_transactions,
    wal_kept,
)
