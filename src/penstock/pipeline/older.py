"""What an older ClickHouse changes in the plans: columns that hold less than on the newest one, and types that outlive an upgrade."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from penstock.clickhouse import fit
from penstock.errors import ConfigError
from penstock.finding import Finding, Fix, Severity
from penstock.language import N_, said
from penstock.plan import compile_plan
from penstock.typemap import Capabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.clickhouse.client import Client
    from penstock.config import Pipe
    from penstock.plan import Plan, PlanColumn

_DAY_MICROS = 86_400_000_000
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # of the years 1 and 9999
NEWEST = Capabilities(
    version="26.9",
    date32=(_FIRST_DAY, _LAST_DAY),
    datetime64=(_FIRST_DAY * _DAY_MICROS, (_LAST_DAY + 1) * _DAY_MICROS - 1),
    time64=True,
    json=True,
)
"""What the newest release that was tried can hold."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NULLABLE = re.compile(r"\bNullable\(((?:[^()]|\([^()]*\))*)\)")
_SHOWN = 20  # columns, before the rest is only counted
_PLACED = N_("{type} in place of {best}")
_NARROWER = N_("{type} holds {first} to {last} only")
_TEXT = (N_("Every value is kept, as PostgreSQL prints it."), N_("After an upgrade of ClickHouse: penstock resync."))
_ZONE = (
    N_("It is shown in the time zone of the server, not as PostgreSQL has it."),
    N_("Copy it again: penstock resync."),
)
_RANGE = (
    N_("A newer ClickHouse holds more. Here what is outside becomes the nearest bound, and is counted."),
    N_('types = {{ column = "String" }} in the options of the table keeps it as PostgreSQL prints it.'),
)


def as_stored(client: Client, pipe: Pipe, plan: Plan, server: Capabilities) -> Plan:
    """The plan, but for columns that stand in the table with the type that an older server gave them, or one in UTC.

    So a table outlives an upgrade of ClickHouse: a time or JSON that became String there goes on as String.
    """
    try:
        older = compile_plan(plan.table, pipe, replace(server, time64=False, json=False, utc=True))
    except ConfigError:  # Time64 is asked for by name
        return plan
    if older.columns == plan.columns:
        return plan
    stored = fit.column_types(client, pipe.database, plan.target)
    columns = [
        was if stored.get(was.name) == was.clickhouse else now
        for was, now in zip(older.columns, plan.columns, strict=True)
    ]
    return replace(plan, columns=tuple(columns))


def narrower(pipe: Pipe, plans: Sequence[Plan], server: Capabilities) -> list[Finding]:
    """What columns hold less than they would on the newest ClickHouse: one finding a way of it, which names the columns."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for plan in plans:
        newest = compile_plan(plan.table, pipe, _widest(server))
        for ours, best in zip(plan.columns, newest.columns, strict=True):
            if less := _less(ours, best, server):
                found.setdefault(less, []).append(f"{plan.table.full_name}.{ours.name}")
    return [
        Finding(
            "destination_types",
            Severity.INFO,
            f"ClickHouse {server.version}",
            f"{how}: {_listed(names)}",
            said(why),
            Fix(advice=said(fix)),
        )
        for (how, why, fix), names in found.items()
    ]


def _widest(server: Capabilities) -> Capabilities:
    """The server may be newer than what we know."""
    return replace(
        NEWEST,
        date32=(min(NEWEST.date32[0], server.date32[0]), max(NEWEST.date32[1], server.date32[1])),
        datetime64=(min(NEWEST.datetime64[0], server.datetime64[0]), max(NEWEST.datetime64[1], server.datetime64[1])),
        utc=server.utc,
    )


def _less(ours: PlanColumn, best: PlanColumn, server: Capabilities) -> tuple[str, str, str] | None:
    """How a column holds less than it could, what that means, and what to do."""
    if ours.clickhouse != best.clickhouse:
        placed = said(_PLACED, type=_bare(ours.clickhouse), best=_bare(best.clickhouse))
        same_codec = ours.codec.kind is best.codec.kind
        return placed, *(_ZONE if same_codec and not server.utc else _TEXT)
    if ours.codec == best.codec:
        return None
    if "Date32" in ours.clickhouse:
        first, last = (_EPOCH + timedelta(days=day) for day in server.date32)
    else:
        first, last = (_EPOCH + timedelta(microseconds=each) for each in server.datetime64)
    return said(_NARROWER, type=_bare(ours.clickhouse), first=first.date(), last=last.date()), *_RANGE


def _bare(type_: str) -> str:
    """Without Nullable: that is the column's own affair."""
    return _NULLABLE.sub(r"\1", type_)


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
