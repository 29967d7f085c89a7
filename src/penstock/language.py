"""Findings and guides in the reader's language: gettext catalogues in ``locale/``, made with Babel (docs/languages.py).

Every text of a finding goes through ``said``. Its template is a literal at the call, or one in a table of facts that is
marked with ``N_``: that is how Babel finds what is to be translated. Names, statements and numbers are never translated.
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
    return in_language(template).format(**values)


def in_language(template: str) -> str:
    """The template in the chosen language, as it is."""
    language = _chosen.get()
    return _catalogue(language).gettext(template) if language != "en" and template else template


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    return gettext.translation("penstock", LOCALE, [language], fallback=True)
