"""What is asked of the server before a pipe runs; part of ``checks.CHECKS``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.finding import Finding, Fix, Severity
from penstock.language import N_, said
from penstock.observe.words import duration
from penstock.postgres.providers import Support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.postgres import providers
    from penstock.postgres.question import Question

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
CLOCK_SECONDS = 30.0
"""By how much two clocks may differ before it is mentioned."""


def provider(asked: Question) -> Iterator[Finding]:
    """Who runs the source, and by what that was recognised."""
    found = asked.recognised
    if found.provider.support is Support.FULL:
        if found.provider.name != "generic":
            problem = said("known by {mark}", mark=found.mark) if found.mark else said("named in the pipe")
            yield Finding("provider", Severity.INFO, found.provider.title, problem)
    elif found.provider.support is Support.NONE or asked.pipe.pipe.mode != "snapshot":
        yield refused(found.provider)


def refused(found: providers.Provider) -> Finding:
    """What is said of a provider whose servers cannot be followed."""
    advice = said('Set mode = "snapshot" in [pipe]: the tables are copied once.')
    fix = Fix(advice=advice) if found.support is Support.SNAPSHOT else Fix(advice=said("Choose another source."))
    return Finding(
        "provider",
        Severity.BLOCKING,
        found.title,
        said(found.refusal),
        said("Without a stream of changes a pipe cannot follow the tables."),
        fix,
    )


def version(asked: Question) -> Iterator[Finding]:
    """Whether it is new enough."""
    oldest = asked.provider.oldest
    if asked.provider.support is not Support.NONE and asked.major < oldest:
        yield Finding(
            "version",
            Severity.BLOCKING,
            f"PostgreSQL {asked.server.release}",
            said("it is too old: {oldest} is the oldest that Penstock reads", oldest=oldest),
            fix=Fix(advice=said("Upgrade the server.")),
        )


@dataclass(frozen=True, slots=True)
class _Bug:
    """A mistake of PostgreSQL's in releases of one major version, from ``first`` to before ``mended``."""

    major: int
    first: int
    mended: int
    problem: str


_TOO_MUCH_AT_ONCE = N_(
    "with many changes of definitions or temporary tables in parallel, logical decoding asks for more than 1 GB at once "
    "and ends with “invalid memory alloc request size”, each time anew"
)
_WRONG_SNAPSHOT = N_(
    "logical decoding that starts amid changes of definitions may read rows by the definition of another time"
)
BUGS = (
    *(
        _Bug(major, minor, minor + 1, _TOO_MUCH_AT_ONCE)
        for major, minor in ((13, 21), (14, 18), (15, 13), (16, 9), (17, 5))
    ),
    *(_Bug(major, 0, minor, _WRONG_SNAPSHOT) for major, minor in ((12, 13), (13, 9), (14, 6))),
)
"""From PostgreSQL's release notes."""


def bugs(asked: Question) -> Iterator[Finding]:
    """Whether this release has a known mistake in logical decoding."""
    minor = int(asked.server.version_number) % 10000
    for bug in BUGS:
        if bug.major == asked.major and bug.first <= minor < bug.mended:
            yield Finding(
                "version_bugs",
                Severity.WARNING,
                f"PostgreSQL {asked.major}.{minor}",
                said(bug.problem),
                said("The pipe would stop, or its tables would have to be copied again."),
                Fix(advice=said("Upgrade the server to {release} or later.", release=f"{bug.major}.{bug.mended}")),
            )


def pooler(asked: Question) -> Iterator[Finding]:
    """A pooler hands out process ids of its own; some are known by their host."""
    host = asked.connection.info.host or ""
    by_host = bool(asked.provider.poolers) and re.search(asked.provider.poolers, host) is not None
    if not by_host and asked.connection.info.backend_pid == asked.server.backend_pid:
        return
    direct = asked.provider.direct_host(host)
    advice = said("Let source.dsn name {host}.", host=direct) if direct else said(asked.provider.direct_advice)
    yield Finding(
        "pooler",
        Severity.BLOCKING,
        host,
        said("the DSN leads through a connection pooler or proxy"),
        said("Replication does not get through one."),
        Fix(advice=advice or said("Give the host and port of PostgreSQL itself.")),
    )


def endpoint(asked: Question) -> Iterator[Finding]:
    """Whether the host leads to the writer, and goes on doing so after a failover."""
    host, there = asked.connection.info.host or "", asked.provider
    advice = said(there.endpoint_advice)
    if there.readers and re.search(there.readers, host):
        if writer := there.writer_host(host):
            advice = said("Let source.dsn name {host}.", host=writer)
        yield Finding(
            "endpoint",
            Severity.BLOCKING,
            host,
            said("it is a reader endpoint"),
            said("A pipe needs the writer: only there a slot can be made and kept."),
            Fix(advice=advice),
        )
    elif there.pinned and re.search(there.pinned, host):
        yield Finding(
            "endpoint",
            Severity.WARNING,
            host,
            said("it is the endpoint of one instance"),
            said("After a failover it leads to a reader, and the pipe stands still."),
            Fix(advice=advice),
        )


def recovery(asked: Question) -> Iterator[Finding]:
    """Whether it is a standby."""
    if asked.server.in_recovery and not asked.pipe.source.standby:
        yield Finding(
            "recovery",
            Severity.BLOCKING,
            asked.connection.info.host or "",
            said("the server is a standby"),
            said("A pipe needs the primary, or from 16 on a standby that is meant: source.standby = true."),
            Fix(advice=said(asked.provider.endpoint_advice)),
        )


def wal_level(asked: Question) -> Iterator[Finding]:
    """Whether logical decoding is switched on."""
    if asked.server.wal_level == "logical":
        return
    wanted = asked.provider.logical
    restart_only = all(_waits_for_restart(asked, each) for each in wanted)
    found = said("wal_level is {level}", level=asked.server.wal_level)
    yield Finding(
        "wal_level",
        Severity.BLOCKING,
        ", ".join(each.name for each in wanted),
        said("{found}: logical decoding is set, and the server was not restarted since", found=found)
        if restart_only
        else said("{found}: logical decoding is switched off", found=found),
        said("Without it the server does not write down what changed in a form that can be followed."),
        asked.provider.restart.filled(asked.facts) if restart_only else asked.provider.switch_on(asked.facts),
    )


def _waits_for_restart(asked: Question, parameter: providers.Parameter) -> bool:
    """Whether a parameter has its value, which wal_level does not show yet."""
    setting = asked.settings.get(parameter.name)
    if setting is None:
        return False
    return setting.pending or (parameter.name != "wal_level" and setting.value == parameter.expected)


def encryption(asked: Question) -> Iterator[Finding]:
    """Whether somebody on the way can read along; through a tunnel, and within this machine, there is nobody."""
    if asked.connection.pgconn.ssl_in_use or asked.pipe.source.ssh or _is_local(asked.connection.pgconn.hostaddr):
        return
    yield Finding(
        "encryption",
        Severity.WARNING,
        asked.connection.info.host or "",
        said("the connection is not encrypted"),
        said("Whoever is on the way can read every row, and change it."),
        Fix(
            advice=said(
                "Let source.dsn have sslmode=verify-full, with sslrootcert=system (Azure, Neon and most others), or the file of the "
                "provider's authority (Amazon publishes global-bundle.pem); a server of your own needs ssl = on first."
            )
        ),
    )


def _is_local(hostaddr: bytes) -> bool:
    """A socket in a folder has no address."""
    try:
        address = ipaddress.ip_address(hostaddr.decode())
    except ValueError:
        return True
    return any(address in network for network in LOOPBACK)


def clock(asked: Question) -> Iterator[Finding]:
    """Whether both clocks agree."""
    if abs(asked.skew_seconds) > CLOCK_SECONDS:
        yield Finding(
            "clock",
            Severity.WARNING,
            asked.connection.info.host or "",
            said("its clock and the one here differ by {time}", time=duration(abs(asked.skew_seconds))),
            said("Delays are shown wrongly, and certificates and tokens may be refused."),
            Fix(advice=said("Let both machines take their time from NTP.")),
        )


def encoding(asked: Question) -> Iterator[Finding]:
    """Whether the server knows what its texts mean."""
    if asked.server.encoding == "SQL_ASCII":
        yield Finding(
            "encoding",
            Severity.INFO,
            asked.server.database,
            said("its encoding is SQL_ASCII: the server does not know what the bytes of a text mean"),
            said("Texts arrive byte by byte, valid UTF-8 or not."),
        )


CHECKS: tuple[Callable[[Question], Iterator[Finding]], ...] = (
    provider,
    version,
    bugs,
    pooler,
    endpoint,
    recovery,
    wal_level,
    encryption,
    clock,
    encoding,
)
