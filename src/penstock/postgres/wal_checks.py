"""What is asked about WAL, and what makes the server keep it, before a pipe runs; part of ``checks.CHECKS``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from penstock.finding import Finding, Fix, Severity
from penstock.language import said
from penstock.observe.words import duration, size
from penstock.postgres.question import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres.question import Question

ENOUGH_KEEP_BYTES = 100 << 30  # what the providers' guides ask for
KEEP_SECONDS = 2 * 86_400.0
MEASURED_SECONDS = 0.5
"""A shorter time says nothing of how much WAL is written. It is waited for only where WAL is kept up to a limit."""
LONG_SECONDS = 60.0
"""After so long a transaction is mentioned: slot and copy wait for it."""
_WAL_STATISTICS = 14
_MOST_SHOWN = 5


# What slot and copy wait for


def long_transactions(asked: Question) -> Iterator[Finding]:
    """Who has been in a transaction for long: a slot is made, and a copy begins, when all that ran at that moment have ended."""
    running = asked.fetch("long_transactions", seconds=LONG_SECONDS)
    rows = [row for row in running if row.seconds is not None]
    if hidden := len(running) - len(rows):
        yield Finding(
            "long_transactions",
            Severity.INFO,
            asked.server.role,
            said("the role may not see for how long {count} transactions run", count=hidden),
            said("A slot is made, and a copy begins, only when they have ended; until then WAL is kept."),
            Fix(sql=(f"GRANT pg_read_all_stats TO {asked.role};",)),
        )
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
    time.sleep(max(0.0, asked.asked_at + MEASURED_SECONDS - time.monotonic()))
    (row,) = asked.fetch("wal_since", lsn=asked.server.lsn)
    rates: list[float] = [row.bytes / (time.monotonic() - asked.asked_at)]
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
    timeouts,
    long_transactions,
    prepared_transactions,
    wal_kept,
)
