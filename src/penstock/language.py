"""Findings, errors and guides in the reader's language: gettext catalogues in ``locale/``, made with Babel (docs/languages.py).

Every text of a finding goes through ``said``. Its template is a literal at the call, or one in a table of facts that is
marked with ``N_``: that is how Babel finds what is to be translated. Names, statements and numbers are never translated.

An error does not know who will read it: the log and the state store have it in English, the operator in his language. It is
made of a ``phrase``, which is English, and ``spoken`` where it is shown.
"""

from __future__ import annotations

import gettext
import os
from contextvars import ContextVar
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "ko", "ja", "zh")
LOCALE = Path(__file__).parent / "locale"
_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")  # as gettext asks them
_chosen: ContextVar[str] = ContextVar("language", default="en")


def N_(text: str) -> str:  # noqa: N802 -- gettext's own name for it
    """Mark a literal that ``said`` is given later."""
    return text


def wanted() -> str:
    """The language that the environment asks for; English where there is no catalogue of it."""
    named = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    for each in named.split(":"):
        language = each.replace("-", "_").partition(".")[0].partition("_")[0].lower()
        if language in LANGUAGES:
            return language
    return "en"


def choose(language: str) -> None:
    """From here on ``said`` speaks this one of LANGUAGES, in this thread or task and those that inherit its context."""
    if language not in LANGUAGES:
        raise ValueError(f"no catalogue of {language}")
    _chosen.set(language)


def said(template: str, /, **values: object) -> str:
    """The template in the chosen language, filled in. One without a translation stays English."""
    return in_language(template).format(**{name: _spoken(value) for name, value in values.items()})


class Phrase(str):
    """An English text that remembers what it was made of. Any operation on it gives a plain text."""

    template: str
    values: dict[str, object]


def phrase(template: str, /, **values: object) -> Phrase:
    """The template in English, filled in, for ``spoken`` to say it in another language."""
    made = Phrase(template.format(**values))
    made.template, made.values = template, values
    return made


def joined(*texts: str, between: str = " ") -> Phrase:
    """Several as one; empty ones are left out."""
    values = {f"text{place}": text for place, text in enumerate(texts) if text}
    return phrase(between.join(f"{{{name}}}" for name in values), **values)


def spoken(text: str) -> str:
    """A phrase in the chosen language; any other text as it is."""
    return said(text.template, **text.values) if isinstance(text, Phrase) else text


def _spoken(value: object) -> object:
    return spoken(value) if isinstance(value, str) else value


def in_language(template: str) -> str:
    """The template in the chosen language, as it is."""
    language = _chosen.get()
    return _catalogue(language).gettext(template) if language != "en" and template else template


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    return gettext.translation("penstock", LOCALE, [language], fallback=True)
