"""Who runs the source: rows of facts, not a class tree. What differs between providers is what the operator has to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.postgres import QUERIES
from penstock.postgres.connection import translated
from penstock.postgres.providers.amazon import AURORA, RDS
from penstock.postgres.providers.google import ALLOYDB, CLOUD_SQL
from penstock.postgres.providers.hosted import (
    CRUNCHY,
    DIGITALOCEAN,
    GENERIC,
    HEROKU,
    NEON,
    PLANETSCALE,
    REFUSED,
    SUPABASE,
    TIMESCALE,
)
from penstock.postgres.providers.microsoft import AZURE
from penstock.postgres.providers.row import Parameter, Provider, Support

if TYPE_CHECKING:
    from penstock.postgres.connection import Connection

__all__ = ["PROVIDERS", "Parameter", "Provider", "Recognised", "Support", "by_host", "named", "recognise"]

PROVIDERS = (
    *REFUSED,
    HEROKU,  # on Amazon's servers
    AURORA,
    RDS,
    AZURE,
    ALLOYDB,
    CLOUD_SQL,
    SUPABASE,
    NEON,
    CRUNCHY,
    PLANETSCALE,
    TIMESCALE,
    DIGITALOCEAN,
    GENERIC,
)
"""The first that fits; the last fits always."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A provider, and by what it was known; empty where it was named in the pipe, or nothing told."""

    provider: Provider
    mark: str = ""


def recognise(connection: Connection, host: str) -> Recognised:
    """The provider, by what the server shows of itself, else by the name of its host."""
    marks = sorted({mark for each in PROVIDERS for mark in each.marks})
    with translated("asking who runs the source"):
        row = connection.execute(QUERIES["marks"], {"marks": marks}).fetchone()
    there = set(row[0]) if row else set()
    for each in PROVIDERS:
        for mark in each.marks:
            if mark in there:
                return Recognised(each, mark.replace(":", " ", 1))
    return by_host(host)


def by_host(host: str) -> Recognised:
    """The provider by the name of the host alone; the generic one where it does not tell."""
    for each in PROVIDERS:
        if each.hosts and re.search(each.hosts, host):
            return Recognised(each, f"host {host}")
    return Recognised(PROVIDERS[-1])


def named(name: str) -> Provider | None:
    """The provider of that name, None where there is none."""
    return next((each for each in PROVIDERS if each.name == name), None)
