"""What setup looks at: the pipe, the source through an administrator's eyes, and what the operator chose."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock.errors import ConfigError, SourceError, SourceRefusedError
from penstock.language import phrase
from penstock.postgres import catalog, hosts, providers
from penstock.postgres.connection import Connector, translate, translated
from penstock.postgres.question import fetch
from penstock.postgres.timeline import system
from penstock.postgres.waiting import ALONE, limited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.config import Pipe
    from penstock.postgres.connection import Connection
    from penstock.postgres.providers import Provider
    from penstock.table import Table


CHOICES = {
    "address": "the address or network that the firewall is to let in, as 203.0.113.7/32; "
    "without it this machine's, where the server's is private too",
    "subscription": "Azure's subscription, instead of AZURE_SUBSCRIPTION_ID",
    "server": "the cluster's, instance's or server's name, where the host is none of its endpoints",
    "wal_sender_timeout": "the server's, as some guides ask for 0; a pipe sets its own for its sessions, and does not need it",
    "endpoint_service": "a service of PrivateLink's that leads to the source: an endpoint to it is made",
    "vpc": "where that endpoint is made",
    "subnets": "the same, with commas in between",
    "security_groups": "which the endpoint gets, likewise",
}
"""What only the operator can know: ``--with NAME=VALUE``."""


@dataclass(slots=True)
class Asked:
    """The source. Its connection is made when it is needed, and again after a restart."""

    pipe: Pipe
    connector: Connector
    provider: Provider
    choices: Mapping[str, str] = field(default_factory=dict)
    show_password: bool = False
    shown: dict[str, str] = field(default_factory=dict)  # passwords that are to be shown, by role
    _connection: Connection | None = None
    _refusal: SourceError | None = None  # why there is no connection: one that times out is not tried at every look

    @classmethod
    def of(cls, pipe: Pipe, admin_dsn: str, *, choices: Mapping[str, str], show_password: bool = False) -> Asked:
        """Whether or not the server can be reached. Raises ConfigError."""
        connector = Connector(_administrator(pipe, admin_dsn), f"penstock setup {pipe.name}")
        asked = cls(pipe, connector, providers.PROVIDERS[-1], choices, show_password)
        asked.provider = asked.recognised()
        return asked

    def recognised(self) -> Provider:
        """Who runs the source: as the pipe says, as the server shows, or as its name tells."""
        chosen = providers.named(self.pipe.source.provider)
        if chosen is not None:
            return chosen
        try:
            return providers.recognise(self.source, self.host).provider
        except SourceError:
            return providers.by_host(self.host).provider

    @property
    def source(self) -> Connection:
        """The administrator's connection. Raises SourceError, the same again until ``anew``, and ConfigError."""
        if self._refusal is not None:
            raise self._refusal
        if self._connection is None or self._connection.closed:
            try:
                self._connection = self.connector.connect()
            except SourceError as error:
                self._refusal = error
                raise
        return self._connection

    def answers(self) -> bool:
        """Whether the server can be reached, if only to say no: otherwise a firewall may be in the way."""
        try:
            _ = self.source
        except SourceError as error:
            return re.search(r"timed? ?out", error.message) is None
        return True

    @property
    def reachable(self) -> bool:
        """Whether statements can be run."""
        with contextlib.suppress(SourceError):
            return bool(self.source)
        return False

    def anew(self) -> bool:
        """After what may have restarted the server, or opened the way to it: whether a new connection can be made."""
        self.close()
        self._refusal = None
        return self.reachable

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    @property
    def host(self) -> str:
        """The host in the pipe's DSN."""
        return str(conninfo_to_dict(self.pipe.source.dsn).get("host") or "")

    @property
    def role(self) -> str:
        """The role that the pipe connects as."""
        given = conninfo_to_dict(self.pipe.source.dsn)
        if not given.get("user") and given.get("service"):
            raise ConfigError(
                "source.dsn names a service and no user, which setup has to know", hint="Add user=… to it."
            )
        return str(given.get("user") or _usual("user"))

    @property
    def streams(self) -> bool:
        """Whether the pipe follows changes; a single copy needs no more than rights to read."""
        return self.pipe.pipe.mode != "snapshot"

    @property
    def tokens(self) -> str:
        """Whose tokens the pipe logs in with; empty for a password."""
        chosen = self.pipe.source.authentication
        return "" if chosen == "password" else chosen

    @property
    def database(self) -> str:
        """The database that is replicated."""
        return str(self.source.info.dbname)

    @property
    def system(self) -> str:
        """The server's system identifier; empty where it cannot be reached, or does not tell this administrator."""
        with contextlib.suppress(SourceError):
            return system(self.source).system_identifier
        return ""

    def facts(self, **known: str) -> dict[str, str]:
        """What the templates of the provider's fixes are filled with."""
        address = self.choices.get("address", "").partition("/")[0]
        return self.provider.facts(self.host, address=address, **known)

    def fetch(self, query: str, **parameters: object) -> list[Any]:
        """The rows of a named query."""
        return fetch(self.source, query, **parameters)

    def administrator(self) -> Any:
        """The server, and the role that setup works with there."""
        return self.fetch("administrator", slot=self.pipe.slot)[0]

    def tables(self) -> list[Table]:
        """The tables of the pipe."""
        return catalog.read_tables(self.source, self.pipe.tables.matches)

    def statement(self, template: LiteralString, **names: str) -> str:
        """A statement for people and for the server: ``{name}`` becomes a quoted identifier."""
        parts = {key: sql.Identifier(value) for key, value in names.items()}
        return sql.SQL(template).format(**parts).as_string(self.source)

    def run(self, *statements: str) -> None:
        """Run statements, each by itself: ALTER SYSTEM takes no transaction."""
        for each in statements:
            doing = f"setup: {each.partition(' PASSWORD ')[0]}"
            with translated(doing), limited(self.source, doing, ALONE):
                self.source.execute(each.encode())

    def run_if_there(self, statement: str) -> None:
        """Run what takes something back; nothing where that is gone already. Raises SourceError."""
        doing = f"setup --undo: {statement}"
        try:
            with limited(self.source, doing, ALONE):
                self.source.execute(statement.encode())
        except _GONE:
            return
        except psycopg.errors.DependentObjectsStillExist as error:
            raise SourceRefusedError(
                f"{doing} {error.diag.message_primary}",
                hint=phrase(
                    "It was given more than setup gave: {what}. Take that back, then run it again.",
                    what=error.diag.message_detail,
                ),
            ) from None
        except psycopg.Error as error:
            raise translate(error, doing) from None


_GONE = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedObject, psycopg.errors.InvalidSchemaName)


def _usual(keyword: str) -> str:
    """What libpq takes where a DSN leaves something out."""
    found = (each.val for each in pq.Conninfo.get_defaults() if each.keyword == keyword.encode())
    return (next(found, None) or b"").decode()


def _administrator(pipe: Pipe, admin_dsn: str) -> Any:
    """The pipe's source as the administrator reaches it: what is not said is as in the pipe, the database always is."""
    if not admin_dsn:
        return pipe.source
    hosts.require_plain(admin_dsn, "the administrator's DSN")
    hosts.require_plain(pipe.source.dsn, "source.dsn")
    try:
        given = conninfo_to_dict(admin_dsn)
    except Exception:  # it may hold a password: neither it nor libpq's words about it are repeated
        raise ConfigError(
            phrase("the administrator's DSN is neither a URI nor a list of key=value pairs that libpq understands"),
            hint=phrase('Write "user=postgres password=…"; the rest is taken from the pipe.'),
        ) from None
    known = conninfo_to_dict(pipe.source.dsn)
    database = known.get("dbname") or known.get("user") or _usual("user")
    theirs = {
        key: value for key, value in known.items() if key not in ("user", "password", "passfile", "sslcert", "sslkey")
    }
    dsn = make_conninfo("", **{**theirs, **given, "dbname": database})
    return pipe.source.model_copy(update={"dsn": dsn, "password": None, "authentication": "password"})
