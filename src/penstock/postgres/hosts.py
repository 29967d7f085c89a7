"""The hosts of a DSN, one after the other: each gets its own way through a tunnel, its own token, and its own words when it fails.

Names are resolved by psycopg at each attempt, and nowhere kept. (PostgreSQL manual, 34.1.1.3: Specifying Multiple Hosts.)
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import conninfo

from penstock.errors import ConfigError, SourceUnavailableError
from penstock.language import joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock.errors import PenstockError

DEFAULT_PORT = 5432


def require_plain(dsn: str, what: str) -> None:
    """See that a URI says which of its signs end the password: libpq takes the rest for a host, which messages name.

    Raises ConfigError, which does not repeat it.
    """
    scheme, _, rest = dsn.partition("://")
    if not rest or scheme not in ("postgresql", "postgres"):
        return
    authority, _, path = rest.partition("?")[0].partition("/")
    if authority.count("@") > 1 or "@" in path:
        raise ConfigError(
            f"{what} has an @ too many, or a / or ? before it",
            hint="In a user, password or database write %40 for @, %2F for /, %3F for ?, %3A for : and %25 for %.",
        )
    hosts = authority.rpartition("@")[2]
    if any(not re.fullmatch(r"(\[[^]]*\]|[^][:]*)(:\d*)?", each) for each in hosts.split(",")):
        raise ConfigError(
            f"a port in {what} is not a number",
            hint="Write postgresql://user@host:5432/database; an IPv6 address stands in brackets.",
        )


def are_several(parameters: Mapping[str, Any]) -> bool:
    """Whether the DSN names several hosts."""
    return any("," in str(parameters.get(name) or "") for name in ("host", "hostaddr"))


def attempts(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The connections to try, in this order, with one host each. Raises ConfigError."""
    lists = {name: str(parameters[name]).split(",") for name in ("host", "hostaddr", "port") if parameters.get(name)}
    count = max((len(lists[name]) for name in ("host", "hostaddr") if name in lists), default=1)
    if count == 1:
        return [dict(parameters)]
    if len(lists.get("port", ())) == 1:
        lists["port"] *= count
    if {len(each) for each in lists.values()} != {count}:
        said = ", ".join(f"{len(each)} of {name}" for name, each in lists.items())
        raise ConfigError(
            f"source.dsn names {count} hosts, but {said}", hint="Name one port for all hosts, or one for each."
        )
    each_alone = [{**parameters, **{name: each[number] for name, each in lists.items()}} for number in range(count)]
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(each_alone)
    if parameters.get("target_session_attrs") == "prefer-standby":
        standbys, any_of_them = (
            [{**one, "target_session_attrs": wish} for one in each_alone] for wish in ("standby", "any")
        )
        return [*standbys, *any_of_them]
    return each_alone


def where(parameters: Mapping[str, Any]) -> str:
    """Host, port and database, for messages."""
    if parameters.get("service") and not parameters.get("host"):
        return f"service {parameters['service']}"
    host = str(parameters.get("host") or parameters.get("hostaddr") or "the local socket")
    name = f"[{host}]" if ":" in host and "," not in host else host
    return f"{name}:{parameters.get('port') or DEFAULT_PORT}/{parameters.get('dbname') or parameters.get('user') or ''}"


def address(parameters: Mapping[str, Any]) -> tuple[str, int]:
    """Where the server is, for somebody who connects to it himself. Raises ConfigError."""
    host = str(parameters.get("hostaddr") or parameters.get("host") or "")
    if not host or host.startswith(("/", "@")):
        raise ConfigError(
            "source.dsn names no host, and with [source.ssh] it must: the jump server connects to it",
            hint='Write the host as the jump server knows it: "postgresql://user@10.0.0.5:5432/database". A service file is not read.',
        )
    try:
        return host, int(parameters.get("port") or DEFAULT_PORT)
    except ValueError:
        raise ConfigError("the port in source.dsn is not a number", hint="Mend the DSN in [source].") from None


def beside(dsn: str, given: str) -> tuple[str, str]:
    """Another server, which ``given`` names: for people, and as a DSN; what that does not say is as in ``dsn``. Raises ConfigError."""
    require_plain(given, "--standby")
    try:
        known, theirs = conninfo.conninfo_to_dict(dsn), conninfo.conninfo_to_dict(given)
    except psycopg.Error:
        theirs = {}
    host = theirs.get("host") or theirs.get("hostaddr")
    if not host or theirs.get("password"):
        raise ConfigError(
            "--standby gives a password, which others would see; it is the pipe's"
            if host
            else "--standby names no host",
            hint="Write --standby host=db2.example.com, with port=… where that is another; the rest is taken from the pipe.",
        )
    alone = {**known, "host": None, "hostaddr": None, "port": None, **theirs, "target_session_attrs": "any"}
    return f"{host}:{theirs.get('port') or DEFAULT_PORT}", conninfo.make_conninfo("", **alone)


def most_telling(errors: Sequence[PenstockError]) -> PenstockError:
    """One error for all attempts: what a server said outweighs that another one was not to be had."""
    answered = [each for each in errors if not isinstance(each, SourceUnavailableError)]
    chosen = (answered or list(errors))[0 if answered else -1]
    messages = dict.fromkeys(each.message for each in errors)
    return type(chosen)(joined(*messages, between="; "), hint=chosen.hint)
