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
    DestinationRefusedError,
    DestinationUnavailableError,
    PenstockError,
    ResultTooLargeError,
    SchemaConflictError,
    TableError,
)

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
_RETRY = "Penstock tries again by itself; check that the server runs and can be reached."
_TOO_LONG = re.compile("File name too long|max length of table name")
_SHORTER = "Give it a shorter name: target in [tables.options]; then: penstock resync."
_QUOTE_CHARACTERS = 400
_LESS = "Ask for less: the result is held in memory."
_OF_QUERIES = {164: "The query can only read, and change no setting.", 241: _LESS, 396: _LESS}


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
        return ResultTooLargeError(f"{subject}: too much was asked at once ({_code(code, text)})", hint=_RETRY)
    return of_statement(subject, code, text)


def of_insert(subject: str, code: int, text: str) -> PenstockError:
    """An insert: what is unknown stops its table only, and a materialized view of the user may be at fault."""
    meaning = _meaning(code, text, codes.UNKNOWN_OF_INSERT)
    if issubclass(meaning.kind, DestinationUnavailableError):
        return _error(meaning, subject, code, text)
    if view := _VIEW.search(text):
        problem = f"its materialized view {view[1]} failed"
    elif target := _TARGET.search(text):
        problem = f"the target table {target[1]} of one of its materialized views is gone"
    else:
        return _error(meaning, subject, code, text)
    return BadDataError(
        f"{subject}: {problem} ({_code(code, text)})",
        hint="The rows may be in the table already. Mend or drop the view, then resume the table.",
    )


def of_ddl(subject: str, code: int, text: str) -> PenstockError:
    """A definition: the server's words are shown where it refuses it."""
    if _TOO_LONG.search(text):
        problem = f"{subject}: the name is too long for ClickHouse ({_code(code, text)})"
        return SchemaConflictError(problem, hint=_SHORTER)
    meaning = _meaning(code, text, codes.UNKNOWN)
    if meaning is not codes.UNKNOWN and not issubclass(meaning.kind, TableError):
        return _error(meaning, subject, code, text)
    return SchemaConflictError(f"{subject}: {_sentence(text)} ({_code(code, text)})", hint=meaning.hint)


def of_query(subject: str, code: int, text: str) -> PenstockError:
    """A query that a user typed: the server's words are shown."""
    message = f"{subject}: {_sentence(text)} ({_code(code, text)})"
    if code not in _OF_QUERIES and issubclass(_meaning(code, text, codes.UNKNOWN).kind, DestinationUnavailableError):
        return DestinationUnavailableError(message, hint="Ask again in a moment.")
    return ConfigError(message, hint=_OF_QUERIES.get(code, "Mend the query."))


def of_folder(folder: Path, error: OSError) -> PenstockError:
    """A folder of ours that cannot be used."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return codes.DISK_FULL.kind(f"{folder}: {codes.DISK_FULL.problem}", hint=codes.DISK_FULL.hint)
    return DestinationRefusedError(
        f"the folder {folder} cannot be used: {error.strerror}", hint="Check its path, owner and permissions."
    )


def of_transport(subject: str, error: BaseException, text: str) -> PenstockError:
    """An error that is not ClickHouse's own: the network, TLS, a proxy, or the driver."""
    cause = error.__cause__ or error
    if isinstance(cause, urllib3.exceptions.MaxRetryError) and cause.reason:
        cause = cause.reason
    if isinstance(cause, urllib3.exceptions.SSLError):
        return _tls(subject, str(cause))
    if isinstance(cause, (urllib3.exceptions.HTTPError, OSError)):
        return DestinationUnavailableError(f"{subject} {_network(cause)}", hint=_RETRY)
    if "is for clickhouse-client program" in text:
        return DestinationRefusedError(
            f"{subject} is the port of the native protocol", hint="Use the HTTP port: 8123, or 8443 with secure=true."
        )
    found = _STATUS.search(text)
    status = int(found[1]) if found else 0
    if status in (429, 502, 503, 504):
        return DestinationUnavailableError(f"{subject} answered with HTTP status {status}", hint=_RETRY)
    if status:
        return DestinationRefusedError(
            f"{subject} answered with HTTP status {status}, not as ClickHouse does",
            hint="Check host and port in the destination's dsn, and any proxy in between.",
        )
    return DestinationRefusedError(
        f"{subject}: the driver failed: {type(error).__name__}", hint="Please report this with the log."
    )


def _network(cause: BaseException) -> str:
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return "cannot be reached: its name cannot be resolved"
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return "cannot be reached: the connection was refused"
    if isinstance(cause, (urllib3.exceptions.TimeoutError, TimeoutError)):
        return "did not answer in time"
    return "broke the connection"


def _tls(subject: str, text: str) -> PenstockError:
    if "doesn't match" in text or "Hostname mismatch" in text:
        return DestinationRefusedError(
            f"{subject} shows the certificate of another host",
            hint="Let the dsn name a host of the certificate, or say which it is: …&server_host_name=NAME.",
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return DestinationRefusedError(
            f"{subject} shows a certificate that cannot be verified",
            hint="Give its authority: …&ca_cert=/path/of/ca.pem in the dsn; verify=false only for tests.",
        )
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return DestinationRefusedError(
            f"{subject} does not speak TLS", hint="Take secure=true out of the dsn, or use the TLS port."
        )
    return DestinationUnavailableError(f"{subject} broke the TLS connection", hint=_RETRY)


def _meaning(code: int, text: str, unknown: codes.Meaning) -> codes.Meaning:
    if _NO_SPACE in text:
        return codes.DISK_FULL
    return codes.MEANINGS.get(code, unknown)


def _error(meaning: codes.Meaning, subject: str, code: int, text: str) -> PenstockError:
    return meaning.kind(f"{subject}: {meaning.problem} ({_code(code, text)})", hint=meaning.hint)


def _code(code: int, text: str) -> str:
    """``ClickHouse 252 TOO_MANY_PARTS``."""
    names = _NAME.findall(text)
    return f"ClickHouse {code}" + (f" {names[-1]}" if names else "")


def _sentence(text: str) -> str:
    found = _SENTENCE.search(text)
    sentence = " ".join((found[1] if found else text).split()).partition(" Expected one of:")[0].rstrip(".: ")
    return sentence if len(sentence) <= _QUOTE_CHARACTERS else sentence[:_QUOTE_CHARACTERS] + "…"
