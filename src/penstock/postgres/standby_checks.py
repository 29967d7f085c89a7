"""What is asked about a failover: whether the slot is there when a standby is promoted; part of ``checks.CHECKS``.

A provider whose storage outlives the server keeps the slots with it. Elsewhere PostgreSQL does it from 17 on: the standby copies the slot,
and the stream sends nothing that the standby does not have yet. Each half has settings of its own, on both servers. The standbys
among the hosts of the DSN are asked too, and those that ``penstock check --standby`` names.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg import conninfo

from penstock.errors import SourceError
from penstock.finding import Finding, Fix, Severity
from penstock.language import N_, said, spoken
from penstock.postgres import hosts
from penstock.postgres.connection import Connector
from penstock.postgres.question import fetch, listed
from penstock.postgres.slot import slot_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres.question import Question

KEPT_SINCE = 17
SOURCE_SINCE = 16
_MAKE = "CREATE PUBLICATION penstock FOR ALL TABLES;"
_COST = N_("After a promotion the changes until then cannot be had any more: every table is copied again.")


def standbys(asked: Question) -> Iterator[Finding]:
    """Whether the slot would survive a failover to a server that follows this one."""
    if asked.server.in_recovery or asked.provider.keeps_slots:
        return
    (found,) = asked.fetch("standbys")
    if not found.senders:
        return
    if asked.major < KEPT_SINCE:
        yield from _before_17(asked, found)
    else:
        yield from _slot_is_kept(asked)
        yield from _awaited(asked, found)
        yield from _unasked(asked, found)


def _before_17(asked: Question, found: Any) -> Iterator[Finding]:
    if not found.extension:
        yield Finding(
            "failover",
            Severity.WARNING,
            asked.pipe.slot,
            said("standbys follow this server ({count}), and none of them keeps the slot", count=found.senders),
            said(_COST),
            Fix(
                advice=said(
                    "Load the extension pg_failover_slots on both servers, or use PostgreSQL 17 or later. Without it: "
                    "penstock resync PIPE.toml --all after a promotion."
                )
            ),
        )


def _slot_is_kept(asked: Question) -> Iterator[Finding]:
    """One of ours is altered by the next run."""
    state = slot_state(asked.connection, asked.pipe.slot)
    if state is not None and not state.failover and asked.pipe.source.slot:
        dsn = "host=HOST dbname=DATABASE user=USER replication=database"
        yield Finding(
            "failover",
            Severity.WARNING,
            asked.pipe.slot,
            said("the slot was made without failover: no standby keeps it"),
            said(_COST),
            Fix(
                advice=said("While nobody streams from it:"),
                cli=(f"psql '{dsn}' -c 'ALTER_REPLICATION_SLOT \"{asked.pipe.slot}\" (FAILOVER true)'",),
            ),
        )


def _awaited(asked: Question, found: Any) -> Iterator[Finding]:
    awaited = [each.strip().strip('"') for each in found.awaited.split(",") if each.strip()]
    if awaited and (not found.slots or set(awaited) & set(found.slots)):
        return
    fix = Fix(advice=said("Let the standby follow through a physical slot (primary_slot_name), and name that slot."))
    if found.slots:
        fix = asked.set("synchronized_standby_slots", ", ".join(found.slots), restarts=False) + Fix(
            advice=said("Only the standbys that may be promoted. The stream waits while one of them does not answer.")
        )
    yield Finding(
        "synchronized_standby_slots",
        Severity.WARNING,
        "synchronized_standby_slots",
        said("the stream does not wait for the standbys that follow through {slots}", slots=listed(found.slots))
        if found.slots
        else said("the stream does not wait for any standby"),
        said("A standby that is promoted may lack changes that the pipe has; their tables are set aside then."),
        fix,
    )


def _unasked(asked: Question, found: Any) -> Iterator[Finding]:
    """Half of what it takes is at the standby, and its address is known to people only. Providers let nobody in there."""
    if asked.provider.name == "generic" and not any(_others(asked)):
        yield Finding(
            "standby",
            Severity.INFO,
            asked.pipe.slot,
            said(
                "standbys follow this server ({count}), and none was asked whether it keeps the slot",
                count=found.senders,
            ),
            fix=Fix(cli=("penstock check PIPE.toml --standby host=STANDBY",)),
        )


def as_source(asked: Question) -> Iterator[Finding]:
    """What a standby needs that a pipe reads from."""
    if not (asked.server.in_recovery and asked.pipe.source.standby):
        return
    host = asked.connection.info.host or ""
    if asked.major < SOURCE_SINCE:
        yield Finding(
            "recovery",
            Severity.BLOCKING,
            host,
            said("the server is a standby of PostgreSQL {major}", major=asked.major),
            said("A standby has slots of its own from 16 on."),
            Fix(advice=said(asked.provider.endpoint_advice)),
        )
        return
    if not asked.pipe.source.publication:
        yield Finding(
            "publication",
            Severity.BLOCKING,
            host,
            said("source.publication is empty"),
            said("A standby cannot make a publication."),
            Fix(advice=said("Make it on the primary, and name it in the pipe: source.publication."), sql=(_MAKE,)),
        )
    (row,) = asked.fetch("standby", name=asked.pipe.slot)
    for need in _NEEDS[1:3]:
        if not need.fits(row):
            yield Finding(
                need.setting,
                Severity.WARNING,
                host,
                said(need.problem),
                said("The primary may remove rows that the slot needs, and the slot is lost then."),
                need.fix(asked),
            )


# The standbys themselves


@dataclass(frozen=True, slots=True)
class _Need:
    """What a standby has to be like, and what to do where it is not."""

    setting: str
    value: str
    fits: Callable[[Any], bool]
    problem: str
    advice: str = ""
    sql: str = ""  # where ALTER SYSTEM alone does not do it

    def fix(self, asked: Question) -> Fix:
        """What mends it at the standby."""
        fix = asked.set(self.setting, self.value, restarts=False)
        if self.sql and fix.sql:
            fix = replace(fix, sql=(self.sql, *fix.sql[1:]))
        return (Fix(advice=said(self.advice)) if self.advice else Fix()) + fix


_NEEDS = (
    _Need(
        "sync_replication_slots",
        "on",
        lambda row: row.synchronizes == "on",
        N_("it does not copy slots from the primary"),
    ),
    _Need(
        "hot_standby_feedback",
        "on",
        lambda row: row.feedback == "on",
        N_("it does not tell the primary which rows it needs"),
    ),
    _Need(
        "primary_slot_name",
        "standby_1",
        lambda row: bool(row.slot),
        N_("it follows without a physical slot"),
        N_("First on the primary: SELECT pg_create_physical_replication_slot('standby_1');"),
    ),
    _Need(
        "primary_conninfo",
        "… dbname=postgres",
        lambda row: row.names_database is not False,
        N_("primary_conninfo names no database, which the copying of slots connects to"),
        sql="SELECT format('ALTER SYSTEM SET primary_conninfo = %L', current_setting('primary_conninfo') || ' dbname=postgres') \\gexec",
    ),
)


def other_hosts(asked: Question) -> Iterator[Finding]:
    """Whether the standbys have a copy of the slot that is ready."""
    if asked.server.in_recovery or asked.provider.keeps_slots or asked.major < KEPT_SINCE:
        return
    made = slot_state(asked.connection, asked.pipe.slot) is not None
    for host, dsn in _others(asked):
        source = asked.pipe.source.model_copy(update={"dsn": dsn})
        try:
            with contextlib.closing(Connector(source, "penstock check").connect()) as connection:
                (row,) = fetch(connection, "standby", name=asked.pipe.slot)
        except SourceError as error:
            problem = said("it could not be asked: {error}", error=error.message)
            yield Finding("standby", Severity.INFO, host, problem, fix=Fix(advice=spoken(error.hint)))
            continue
        if row.in_recovery:
            yield from _standby(asked, host, row, made=made)
        elif (host, dsn) in asked.standbys:
            advice = said("Give the address of the standby itself: --standby {words}", words="host=STANDBY")
            yield Finding("standby", Severity.WARNING, host, said("it is no standby"), fix=Fix(advice=advice))


def _others(asked: Question) -> Iterator[tuple[str, str]]:
    """The hosts of the DSN that the connection did not go to, and those that were named; each with a DSN of its own."""
    given = conninfo.conninfo_to_dict(asked.pipe.source.dsn)
    names = str(given.get("host") or "").split(",")
    ports = str(given.get("port") or "").split(",")
    info = asked.connection.info
    for place, host in enumerate(names if len(names) > 1 else ()):
        port = ports[place] if len(ports) == len(names) else ports[0]
        if (host, int(port or hosts.DEFAULT_PORT)) != (info.host, info.port):
            alone = {**given, "host": host, "port": port or None, "target_session_attrs": "any", "hostaddr": None}
            yield f"{host}:{port or hosts.DEFAULT_PORT}", conninfo.make_conninfo("", **alone)
    yield from asked.standbys


def _standby(asked: Question, host: str, row: Any, *, made: bool) -> Iterator[Finding]:
    lacking = [need for need in _NEEDS if not need.fits(row)]
    for need in lacking:
        yield Finding(
            need.setting,
            Severity.WARNING,
            host,
            said(need.problem),
            said("When this standby is promoted, the slot is gone.") + " " + said(_COST),
            need.fix(asked),
        )
    if made and not lacking and (problem := _not_ready(row.copy)):
        yield Finding(
            "standby slot",
            Severity.WARNING,
            host,
            problem,
            said("When this standby is promoted, the slot is gone.") + " " + said(_COST),
            Fix(
                advice=said(
                    "Let the pipe run for a while. If it stays so, see the standby's log; on the primary this helps:"
                ),
                sql=("SELECT pg_log_standby_snapshot();",),
            ),
        )


def _not_ready(copy: dict[str, Any] | None) -> str:
    """Why a standby's copy of the slot would not do; empty where it would."""
    if copy is None:
        return said("it has no copy of the slot yet")
    if reason := copy.get("invalidation_reason"):
        return said("its copy of the slot is of no use: {reason}", reason=reason)
    if not copy.get("synced"):
        return said("it has a slot of that name which is no copy")
    if copy.get("temporary"):
        return said("its copy of the slot is not ready: the pipe has to move on the primary first")
    return ""


CHECKS = (standbys, as_source, other_hosts)
