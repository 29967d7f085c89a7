"""What is different from one provider to the next: one row of facts each. The rows are in the files beside this one.

The fixes of the checks, ``penstock setup`` and the pages of docs/sources/ are made from them, so they cannot disagree.
Texts for people are marked with ``N_``. Where a Fix is a template these are filled in: ``{role}`` (quoted), ``{address}``
(Penstock's own), ``{parameter}``, ``{value}``, ``{apply}`` (of AWS), ``{major}`` (PostgreSQL's version), and what the host's name says by
named groups of ``hosts``: ``{server}``, ``{region}``, ``{project}``. What is not known is left as a word in capitals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum

from penstock.finding import Fix

UNKNOWN = {
    "server": "SERVER",
    "region": "REGION",
    "project": "PROJECT",
    "address": "ADDRESS",
    "group": "penstock",
    "major": "VERSION",
    "role": "ROLE",
}
"""What stands in a fix where the fact is not known."""


class Support(Enum):
    """What Penstock can do with a provider's servers."""

    FULL = "full"
    SNAPSHOT = "snapshot"  # a copy, but no stream of changes
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as the provider calls it, the value it needs there, and what SHOW says then."""

    name: str
    value: str
    shown: str = ""  # empty: the value
    restarts: bool = True  # takes effect after a restart only

    @property
    def expected(self) -> str:
        """What SHOW says when it is set."""
        return self.shown or self.value


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. ``marks``: what only its servers have, ``setting:NAME``, ``function:``, ``role:``, ``schema:``, ``version:PATTERN``."""

    name: str  # as in source.provider
    title: str
    manual: str = ""  # its page on logical replication
    support: Support = Support.FULL
    refusal: str = ""  # why there is no stream
    oldest: int = 12  # PostgreSQL's major version
    marks: tuple[str, ...] = ()
    hosts: str = ""  # a pattern of its host names

    # Logical decoding
    logical: tuple[Parameter, ...] = (Parameter("wal_level", "logical"),)
    switch: Fix | None = None  # how it is switched on, where that is no matter of parameters
    setting: Fix = field(default_factory=Fix)  # how {parameter} gets {value}
    restart: Fix = field(default_factory=Fix)
    fixed: tuple[str, ...] = ()  # parameters that nobody can set there
    timeout: str = "role"  # where wal_sender_timeout is set: with ALTER ROLE, or as a "parameter"

    # Roles
    administrator: str = "postgres"  # whose rights the statements need
    replicate: tuple[str, ...] = ("ALTER ROLE {role} WITH REPLICATION;",)
    bypass: tuple[str, ...] = ("ALTER ROLE {role} BYPASSRLS;",)

    # Hosts: replication needs the writer itself
    poolers: str = ""  # a pattern of hosts that are a pooler or proxy
    pooler_ports: tuple[int, ...] = (6432,)
    direct: tuple[str, str] = ("", "")  # a pattern in a pooler's host, and what makes it PostgreSQL's own
    direct_advice: str = ""  # where PostgreSQL's own host is found
    readers: str = ""  # a pattern of hosts that lead to a standby
    writer: tuple[str, str] = ("", "")  # a pattern in a reader's host, and what makes it the writer's
    pinned: str = ""  # a pattern of hosts that stay with one instance when another becomes the writer
    endpoint_advice: str = ""  # which host moves by itself

    # Reaching it, and what to know
    allow: Fix = field(default_factory=Fix)  # how {address} gets through its firewall
    tokens: Fix = field(default_factory=Fix)  # how the role logs in with short-lived tokens
    failover: str = ""
    keeps_slots: bool = False  # the storage outlives the server, and the slots with it
    notes: tuple[str, ...] = ()

    def facts(self, host: str, **known: str) -> dict[str, str]:
        """What templates are filled with: what is known, what the host's name says, and words in capitals for the rest."""
        found = re.search(self.hosts, host) if self.hosts else None
        told = {name: value for name, value in (found.groupdict() if found else {}).items() if value}
        return {**UNKNOWN, **told, **{name: value for name, value in known.items() if value}}

    def set_parameter(self, parameter: Parameter, facts: dict[str, str]) -> Fix:
        """How a parameter is set, with the restart that it needs."""
        apply = "pending-reboot" if parameter.restarts else "immediate"
        values = {**facts, "parameter": parameter.name, "value": parameter.value, "apply": apply}
        if parameter.name in self.fixed:
            return Fix()
        fix = replace(self.setting, parameter="{parameter} = {value}").filled(values)
        return fix + self.restart.filled(values) if parameter.restarts else fix + self._reload()

    def _reload(self) -> Fix:
        """Only ALTER SYSTEM leaves reading the configuration again to us."""
        return Fix(sql=("SELECT pg_reload_conf();",)) if self.setting.sql else Fix()

    def switch_on(self, facts: dict[str, str]) -> Fix:
        """How logical decoding is switched on."""
        if self.switch is not None:
            return self.switch.filled(facts)
        *first, last = self.logical
        without_restart = [self.setting.filled({**facts, **_values(each)}) for each in first]
        return sum(without_restart, Fix()) + self.set_parameter(last, facts)

    def writer_host(self, host: str) -> str:
        """The writer's host for a reader's, empty where its name does not say."""
        return _made(self.writer, host)

    def direct_host(self, host: str) -> str:
        """PostgreSQL's own host for a pooler's, empty where its name does not say."""
        return _made(self.direct, host)


def _values(parameter: Parameter) -> dict[str, str]:
    return {"parameter": parameter.name, "value": parameter.value, "apply": "pending-reboot"}


def _made(rule: tuple[str, str], host: str) -> str:
    pattern, replacement = rule
    made = re.sub(pattern, replacement, host) if pattern else host
    return made if made != host else ""
