"""Looks at a user's query before it is sent: is it one, and does it only read?

ClickHouse's own ``readonly`` does most of it. But chDB writes files for a read-only session all the same, and what is not a select is
refused by a syntax error, because a format is appended. So the words outside of literals and comments are looked at here.
"""

from __future__ import annotations

import re

from penstock.errors import ConfigError

_SKIPPED = re.compile(
    r"""'(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | `(?:[^`\\]|\\.)*` | ‘[^’]*’ | “[^”]*” | \$(\w*)\$.*?\$\1\$"""
    r"""| --[^\n]* | \#[!\ ][^\n]* | /\*.*?\*/""",
    re.DOTALL | re.VERBOSE,
)
_READS = ("select", "with", "show", "describe", "desc", "explain", "exists")
_BLANK = r"[\s\u180e\u200b-\u200d\u2060\ufeff]"  # what ClickHouse takes for blanks
_OUTFILE = re.compile(rf"\binto{_BLANK}+outfile\b", re.IGNORECASE)
_FORMAT = re.compile(rf"\bformat{_BLANK}+(?!ASC\b|DESC\b)([A-Z]\w+)$", re.IGNORECASE)


def one_query(sql: str) -> str:
    """The query as it can be sent, without a semicolon at its end. Raises ConfigError for what does more than read."""
    code = _SKIPPED.sub(_blanked, sql).rstrip("; \t\r\n")
    if not code.strip():
        raise ConfigError("the query is empty", hint='Give a select, such as "select count() from orders_current".')
    first = re.search(r"\w+", code)
    if first is None or first[0].lower() not in _READS:
        what = first[0].upper() if first else sql.strip()[0]
        raise ConfigError(
            f"the query begins with {what}, and this can only read", hint=f"Begin with {', '.join(_READS)}."
        )
    if ";" in code:
        raise ConfigError("there is more than one statement", hint="Ask one query at a time.")
    if _OUTFILE.search(code):
        raise ConfigError("INTO OUTFILE would write a file", hint="Redirect the output: penstock query … > file.")
    if named := _FORMAT.search(code):
        raise ConfigError("the query names a FORMAT of its own", hint=f"Say --format {named[1]} instead.")
    return sql[: len(code)]


def _blanked(found: re.Match[str]) -> str:
    """As long as it was: comments are nothing, literals something."""
    return (" " if found[0][0] in "-#/" else ".") * len(found[0])
