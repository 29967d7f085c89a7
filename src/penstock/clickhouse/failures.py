"""Reads the driver's errors: which class, whose fault, what to do. Used by ``client.translated`` alone.

A server's message may hold statements and values: it is read, and only a DDL's or a user's own query's is shown.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import urllib3.exceptions

from penstock.clickhouse import codes
from penstock.errors import (
    BadDataError,
    ConfigError,
    DestinationAwayError,
    DestinationRefusedError,
    DestinationUnavailableError,
    PenstockError,
    ResultTooLargeError,
    SchemaConflictError,
    TableError,
)
from penstock.language import N_, Phrase, joined, phrase

if TYPE_CHECKING:
    from pathlib import Path

Reading = Callable[[str, int, str], PenstockError]
"""From the subject, ClickHouse's code and its message to our error."""

BAD_ARGUMENTS = 36
MEMORY_LIMIT_EXCEEDED, TOO_MANY_ROWS_OR_BYTES = 241, 396
_CODE = re.compile(r"\bCode: (\d+)|exception, code: (\d+)")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)")
_SENTENCE = re.compile(r"DB::Exception: (.*?)(?:\s*\([A-Z][A-Z0-9_]+\)|\s*\(version |$)", re.DOTALL)
_PART = r"(?:`(?:\\.|[^`\\])*`|[^\s.:,`(]+)"  # of a qualified name
_VIEW = re.compile(rf"while pushing to view ({_PART}\.{_PART})")
_TARGET = re.compile(r"Target table '(.+?)' of view")
_STATUS = re.compile(r"HTTP status (\d{3})")
_NO_SPACE = "No space left on device"
_RETRY = N_("Penstock tries again by itself; check that the server runs and can be reached.")
_LACKS = re.compile(
    r"(\S+): Not enough privileges\. .*?necessary to have the grant (.+? ON .+?)\.? \(ACCESS_DENIED\)", re.DOTALL
)
_TOO_LONG = re.compile("File name too long|max length of table name")
_SHORTER = N_("Give it a shorter name: target in [tables.options]; then: penstock resync.")
_QUOTE_CHARACTERS = 400
_LESS = N_("Ask for less: the result is held in memory.")
_MEND = N_("Mend the query.")
_OF_QUERIES = {164: N_("The query can only read, and change no setting."), 241: _LESS, 396: _LESS}


def code_of(error: BaseException, text: str) -> int:
    """ClickHouse's code of a driver's error, 0 for none."""
    code = getattr(error, "code", None)
    if isinstance(code, int):
        return code
    found = _CODE.search(text)
    return int(found[1] or found[2]) if found else 0


def of_statement(subject: str, code: int, text: str) -> PenstockError:
    """Any statement of ours."""
    return _error(_meaning(code, text, codes.UNKNOWN), subject, code, text)


def of_bounded(subject: str, code: int, text: str) -> PenstockError:
    """A statement of ours whose result is bounded."""
    if code in (MEMORY_LIMIT_EXCEEDED, TOO_MANY_ROWS_OR_BYTES):
        return ResultTooLargeError(
            _told(subject, phrase("too much was asked at once"), code, text), hint=phrase(_RETRY)
        )
    return of_statement(subject, code, text)


def of_insert(subject: str, code: int, text: str) -> PenstockError:
    """An insert: what is unknown stops its table only, and a materialized view of the user may be at fault."""
    meaning = _meaning(code, text, codes.UNKNOWN_OF_INSERT)
    if issubclass(meaning.kind, DestinationUnavailableError):
        return _error(meaning, subject, code, text)
    if view := _VIEW.search(text):
        problem = phrase("its materialized view {view} failed", view=view[1])
    elif target := _TARGET.search(text):
        problem = phrase("the target table {table} of one of its materialized views is gone", table=target[1])
    else:
        return _error(meaning, subject, code, text)
    return BadDataError(
        _told(subject, problem, code, text),
        hint=phrase("The rows may be in the table already. Mend or drop the view, then resume the table."),
    )


def of_ddl(subject: str, code: int, text: str) -> PenstockError:
    """A definition: the server's words are shown where it refuses it."""
    if _TOO_LONG.search(text):
        problem = _told(subject, phrase("the name is too long for ClickHouse"), code, text)
        return SchemaConflictError(problem, hint=phrase(_SHORTER))
    meaning = _meaning(code, text, codes.UNKNOWN)
    if meaning is not codes.UNKNOWN and not issubclass(meaning.kind, TableError):
        return _error(meaning, subject, code, text)
    return SchemaConflictError(_told(subject, _sentence(text), code, text), hint=phrase(meaning.hint))


def of_query(subject: str, code: int, text: str) -> PenstockError:
    """A query that a user typed: the server's words are shown."""
    message = _told(subject, _sentence(text), code, text)
    if code not in _OF_QUERIES and issubclass(_meaning(code, text, codes.UNKNOWN).kind, DestinationUnavailableError):
        return DestinationUnavailableError(message, hint=phrase("Ask again in a moment."))
    hint = _OF_QUERIES.get(code, _MEND)
    return ConfigError(message, hint=phrase(hint))


def of_folder(folder: Path, error: OSError) -> PenstockError:
    """A folder of ours that cannot be used."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = codes.DISK_FULL
        return full.kind(joined(str(folder), phrase(full.problem), between=": "), hint=phrase(full.hint))
    return DestinationRefusedError(
        phrase("the folder {folder} cannot be used: {reason}", folder=folder, reason=error.strerror),
        hint=phrase("Check its path, owner and permissions."),
    )


def of_transport(subject: str, error: BaseException, text: str) -> PenstockError:
    """An error that is not ClickHouse's own: the network, TLS, a proxy, or the driver."""
    cause = error.__cause__ or error
    if isinstance(cause, urllib3.exceptions.MaxRetryError) and cause.reason:
        cause = cause.reason
    if isinstance(cause, urllib3.exceptions.SSLError):
        return _tls(subject, str(cause))
    if isinstance(cause, (urllib3.exceptions.HTTPError, OSError)):
        kind, happened = _network(cause)
        return kind(phrase(happened, server=subject), hint=phrase(_RETRY))
    if "is for clickhouse-client program" in text:
        return DestinationRefusedError(
            phrase("{server} is the port of the native protocol", server=subject),
            hint=phrase("Use the HTTP port: 8123, or 8443 with secure=true."),
        )
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    if status in (429, 502, 503, 504):
        return DestinationAwayError(
            phrase("{server} answered with HTTP status {status}", server=subject, status=status), hint=phrase(_RETRY)
        )
    if status:
        return DestinationRefusedError(
            phrase(
                "{server} answered with HTTP status {status}, not as ClickHouse does", server=subject, status=status
            ),
            hint=phrase("Check host and port in the destination's dsn, and any proxy in between."),
        )
    return DestinationRefusedError(
        joined(subject, phrase("the driver failed: {error}", error=type(error).__name__), between=": "),
        hint=phrase("Please report this with the log."),
    )


def _network(cause: BaseException) -> tuple[type[DestinationUnavailableError], str]:
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return DestinationAwayError, N_("{server} cannot be reached: its name cannot be resolved")
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return DestinationAwayError, N_("{server} cannot be reached: the connection was refused")
    if isinstance(cause, urllib3.exceptions.ConnectTimeoutError):
        return DestinationAwayError, N_("{server} did not answer in time")
    if isinstance(cause, (urllib3.exceptions.TimeoutError, TimeoutError)):  # what was asked may just take long
        return DestinationUnavailableError, N_("{server} did not answer in time")
    return DestinationAwayError, N_("{server} broke the connection")


def _tls(subject: str, text: str) -> PenstockError:
    if "doesn't match" in text or "Hostname mismatch" in text:
        return DestinationRefusedError(
            phrase("{server} shows the certificate of another host", server=subject),
            hint=phrase("Let the dsn name a host of the certificate, or say which it is: …&server_host_name=NAME."),
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return DestinationRefusedError(
            phrase("{server} shows a certificate that cannot be verified", server=subject),
            hint=phrase("Give its authority: …&ca_cert=/path/of/ca.pem in the dsn; verify=false only for tests."),
        )
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return DestinationRefusedError(
            phrase("{server} does not speak TLS", server=subject),
            hint=phrase("Take secure=true out of the dsn, or use the TLS port."),
        )
    return DestinationAwayError(phrase("{server} broke the TLS connection", server=subject), hint=phrase(_RETRY))


def _meaning(code: int, text: str, unknown: codes.Meaning) -> codes.Meaning:
    if _NO_SPACE in text:
        return codes.DISK_FULL
    return codes.MEANINGS.get(code, unknown)


def _error(meaning: codes.Meaning, subject: str, code: int, text: str) -> PenstockError:
    problem = phrase(meaning.problem)
    if lacks := _LACKS.search(text):  # its words are the server's own: names, and no values
        problem = phrase("the user {user} lacks {rights}", user=lacks[1], rights=lacks[2])
    return meaning.kind(_told(subject, problem, code, text), hint=phrase(meaning.hint))


def _told(subject: str, problem: str, code: int, text: str) -> Phrase:
    """``ClickHouse at db:8123: the disk is full (ClickHouse 243 NOT_ENOUGH_SPACE)``."""
    return joined(joined(subject, problem, between=": "), f"({_code(code, text)})")


def _code(code: int, text: str) -> str:
    """``ClickHouse 252 TOO_MANY_PARTS``."""
    names = _NAME.findall(text)
    return f"ClickHouse {code}" + (f" {names[-1]}" if names else "")


def _sentence(text: str) -> str:
    found = _SENTENCE.search(text)
    sentence = " ".join((found[1] if found else text).split()).partition(" Expected one of:")[0].rstrip(".: ")
    return sentence if len(sentence) <= _QUOTE_CHARACTERS else sentence[:_QUOTE_CHARACTERS] + "…"
