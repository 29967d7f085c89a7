"""Connections to the source, and the one place where the driver's errors become Penstock's.

Every session gets the settings that fix PostgreSQL's text form (types.md), an empty search path, so that no object of the
user's stands in for one of the system's, and no time limits of the role's, which would end a copy half-way.
A connection is made anew each time: the host's name is resolved, the password read, or the token made again.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import conninfo, pq
from psycopg.adapt import Loader

from penstock.errors import ConfigError, SourceError, SourceUnavailableError
from penstock.language import joined, phrase
from penstock.postgres import hosts, tokens
from penstock.postgres.passage import Passage
from penstock.postgres.silence import Attentive
from penstock.postgres.trouble import ANY_FIREWALL, RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from psycopg.abc import Buffer

    from penstock.config import Source
    from penstock.errors import PenstockError

Connection = psycopg.Connection[tuple[Any, ...]]

SESSION = {
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "TimeZone": "UTC",
    "search_path": "",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "quote_all_identifiers": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "synchronous_commit": "local",  # the stream that a commit of ours would wait for may be our own
}
"""Settings of every session, known to every version from 12 on."""

NEW_ROLE = "Or let penstock setup make the role and write the file."
NETWORK = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "12000",
}
"""What the DSN may override: a link that is cut without a word is noticed within 15 s. The other end's kernel answers, however long
a statement takes; where it is that of a proxy, ``silence`` tells."""

_NO_LIMITS = "select set_config(name, '0', false) from pg_catalog.pg_settings where name in ('transaction_timeout', 'idle_session_timeout')"


class Connector:
    """Makes connections to one source."""

    def __init__(self, source: Source, application_name: str) -> None:
        """Raises ConfigError when the DSN cannot be understood; its text, which may hold a password, is not repeated."""
        self._source = source
        self._application_name = application_name
        self.guard: Callable[[Connection], None] = lambda _connection: None  # what every connection for SQL has to pass
        hosts.require_plain(source.dsn, "source.dsn")
        try:
            self._parameters = conninfo.conninfo_to_dict(source.dsn)
        except psycopg.Error:
            raise ConfigError(
                phrase("source.dsn is neither a URI nor a list of key=value pairs that libpq understands"),
                hint=phrase(
                    'Write "postgresql://user@host:5432/database?sslmode=verify-full"; escape special characters as %XX.'
                ),
            ) from None
        if hosts.are_several(self._parameters) and not source.standby:
            # Only then do all connections lead to one server, whichever of them it is after a failover.
            self._parameters.setdefault("target_session_attrs", os.environ.get("PGTARGETSESSIONATTRS", "primary"))
        if source.authentication != "password":
            tokens.require_secure(source, self._parameters)

    @property
    def where(self) -> str:
        """Hosts, port and database, for messages."""
        return hosts.where(self._parameters)

    @property
    def host(self) -> str:
        """The host or hosts of the DSN; empty where the DSN leaves it to libpq."""
        return str(self._parameters.get("host") or "")

    def connect(self, *, autocommit: bool = True, copying: bool = False) -> Connection:
        """A connection for SQL. On a ``copying`` one row-level security is an error, where it would hide rows.

        Raises SourceUnavailableError, SourceRefusedError or ConfigError.
        """
        settings = {"row_security": "off", "jit": "off"} if copying else {}
        connection = self._connect(settings, {})
        try:
            self.guard(connection)
        except BaseException:
            connection.close()
            raise
        connection.autocommit = autocommit
        return connection

    def replication(self, settings: Mapping[str, str]) -> Connection:
        """A connection that speaks the replication protocol, with these session settings too; work with its ``pgconn``.

        It takes simple queries only, with their parameters written into them. Raises as ``connect``.
        """
        connection = self._connect(settings, {"replication": "database"})
        connection.cursor_factory = psycopg.ClientCursor
        return connection

    def _connect(self, settings: Mapping[str, str], parameters: Mapping[str, str]) -> Connection:
        given = dict(self._parameters)
        chosen = " ".join(f"-c {name}={_escaped(value)}" for name, value in {**SESSION, **settings}.items())
        given["options"] = f"{given.get('options') or ''} {chosen}".strip()
        if given.get("sslrootcert") == "system":
            _find_authorities()
        fixed = {"client_encoding": "UTF8", "application_name": self._application_name}
        errors: list[PenstockError] = []
        for attempt in hosts.attempts({**NETWORK, **given, **fixed, **parameters}):
            try:
                return self._to(attempt)
            except SourceError as error:
                errors.append(error)
        raise errors[0] if len(errors) == 1 else hosts.most_telling(errors)

    def _to(self, one: Mapping[str, Any]) -> Connection:
        """A connection to one host."""
        given = {**one, **self._password(one)}
        doing = phrase("connecting to {server}", server=hosts.where(one))
        passage = Passage(self._source.ssh, one, doing) if self._source.ssh else None
        if passage:
            given |= passage.open()
        try:
            connection = Attentive.connect("", autocommit=True, **given)
            with contextlib.ExitStack() as undone:
                undone.callback(connection.close)
                connection.execute(_NO_LIMITS)
                for name in _TEXTS:
                    connection.adapters.register_loader(name, _AnyText)
                undone.pop_all()
        except (psycopg.Error, UnicodeError) as error:
            trouble = passage.trouble() if passage else None
            raise trouble or self._told(error, doing, given) from None
        return connection

    def _told(self, error: BaseException, doing: str, given: Mapping[str, Any]) -> PenstockError:
        """What an attempt's error means here: at this provider, with this kind of login."""
        from penstock.postgres.providers import advice  # which connects, too

        host = str(given.get("host") or "")
        told = translate(error, doing, secret=str(given.get("password") or ""), firewall=advice.firewall(host))
        if self._source.authentication != "password" and "authentication failed" in told.message:
            return type(told)(
                told.message, hint=advice.tokens(self._source.authentication, host, str(given.get("user")))
            )
        return told

    def _password(self, one: Mapping[str, Any]) -> dict[str, str]:
        if self._source.authentication != "password":
            return {"password": tokens.token(self._source, one)}
        return {"password": self._source.password.read(way_out=NEW_ROLE)} if self._source.password else {}


class _AnyText(Loader):
    """Texts of a SQL_ASCII database, and names of roles and databases that were made in a database of another encoding.

    A byte that is not UTF-8 becomes a lone surrogate, as Python has it for file names.
    """

    format = pq.Format.TEXT

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


_TEXTS = ("text", "name", "varchar", "bpchar", '"char"')


def _holds_any_bytes(connection: Connection) -> bool:
    return connection.pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII"


def _find_authorities() -> None:
    """Tell libpq's OpenSSL where the system's authorities are: that of psycopg's wheels looks into a folder that nobody has."""
    found = ssl.get_default_verify_paths()
    if found.openssl_cafile_env not in os.environ and found.openssl_capath_env not in os.environ:
        chosen = {found.openssl_cafile_env: found.cafile, found.openssl_capath_env: found.capath}
        os.environ.update({name: path for name, path in chosen.items() if path})


def keep_bytes(connection: Connection) -> None:
    """From here on texts of a SQL_ASCII database come byte by byte: there one that is not UTF-8 would be an error (types.md).

    For connections that carry rows only: psycopg takes no names into statements then that are not ASCII.
    """
    if _holds_any_bytes(connection):
        connection.execute("set client_encoding = 'SQL_ASCII'")


@contextlib.contextmanager
def kept_bytes(connection: Connection) -> Iterator[None]:
    """The same for as long as the context lasts, which begins and ends outside of transactions."""
    keep_bytes(connection)
    try:
        yield
    finally:
        if _holds_any_bytes(connection) and not connection.broken:
            connection.execute("set client_encoding = 'UTF8'")


def _escaped(value: str) -> str:
    """A value in libpq's ``options``: spaces and backslashes are escaped (PostgreSQL manual, 34.1.2)."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def sibling(connection: Connection, *, replication: bool = False) -> Connection:
    """A second connection to the very server of this one; on request one that speaks the replication protocol."""
    used = {each.keyword.decode(): each.val.decode() for each in connection.pgconn.info if each.val}
    if replication:
        used["replication"] = "database"
    with translated(phrase("connecting again")):
        found = Attentive.connect("", autocommit=True, **used)  # type: ignore[arg-type]
    if replication:
        found.cursor_factory = psycopg.ClientCursor
    return found


def failure(pgconn: pq.abc.PGconn, result: pq.abc.PGresult | None) -> psycopg.Error:
    """The driver's error for a result that is none, on a connection without a cursor."""
    if result is not None and result.error_field(pq.DiagnosticField.SQLSTATE):
        return psycopg.errors.error_from_result(result)
    return psycopg.OperationalError(pgconn.get_error_message() or "the server ended the conversation")


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Errors of the driver within become Penstock's; ``doing`` names the object, as in ``reading part 3 of public.orders``."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, doing) from None


def translate(error: BaseException, doing: str, *, secret: str = "", firewall: str = "") -> PenstockError:
    """What an error of psycopg means. ``doing`` says what was tried, with which object; ``secret`` never comes out.

    ``firewall`` says which one may be in the way.
    """
    state = (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
    function = (error.diag.source_function or "") if isinstance(error, psycopg.Error) else ""
    text = _text(error, state, secret)
    message = joined(doing, text, between=": ")
    says = firewall or phrase(ANY_FIREWALL)
    for rule in RULES:
        if rule.fits(state, text, function):
            return rule.error(message, hint=rule.says(says))
    if not state and isinstance(error, (psycopg.OperationalError, UnicodeError)):
        return SourceUnavailableError(message, hint=RULES[-1].says(says))
    return SourceError(message, hint=phrase("See the server's log for the whole error."))


def _text(error: BaseException, state: str, secret: str) -> str:
    """The error in one line, without what may hold a row's value or a secret."""
    if state.startswith("22"):
        return phrase(
            "PostgreSQL could not read a value (SQLSTATE {state})", state=state
        )  # its message repeats the value
    found = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = (found or str(error)).strip().splitlines() or [type(error).__name__]
    text = lines[0].removeprefix("connection failed: ").removeprefix("connection is bad: ")
    if secret:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text
