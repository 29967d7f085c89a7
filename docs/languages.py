"""Keeps the catalogues of src/penstock/locale/ in step with the texts of the code: ``python docs/languages.py``.

Takes what ``said`` and ``N_`` are given into each penstock.po, keeps the translations that are there, and compiles them. What is new
has an empty translation afterwards: fill it in and run this again. A test finds what is missing, stale, or filled in differently.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

SOURCE = Path(__file__).resolve().parents[1] / "src" / "penstock"
LOCALE = SOURCE / "locale"
LANGUAGES = ("ko", "ja", "zh")
KEYWORDS = {"said": None, "N_": None}
HEADER = "# Kept in step with the code by docs/languages.py: change the translations here, the texts there."
WHEN = datetime(2026, 1, 1, tzinfo=UTC)  # so that nothing changes when nothing has changed


def extracted() -> Catalog:
    """Every text that the code can say, with the files that say it."""
    catalog = Catalog(charset="utf-8")
    found = extract_from_dir(SOURCE, [("**.py", "python")], {}, keywords=KEYWORDS)
    for file, _line, message, _comments, _context in found:
        catalog.add(message, locations=[(str(file), 0)])
    return catalog


def path_of(language: str, suffix: str) -> Path:
    """A catalogue's file."""
    return LOCALE / language / "LC_MESSAGES" / f"penstock.{suffix}"


def read(language: str) -> Catalog:
    """A catalogue as it is; empty where there is none yet."""
    path = path_of(language, "po")
    if not path.exists():
        return Catalog(locale=language, charset="utf-8")
    with path.open("rb") as file:
        return read_po(file, locale=language)


def update(language: str, template: Catalog) -> int:
    """Bring one catalogue up to date and compile it; returns how many texts have no translation."""
    catalog = read(language)
    catalog.update(template, no_fuzzy_matching=True)
    catalog.obsolete.clear()
    catalog.header_comment, catalog.fuzzy = HEADER, False
    catalog.project, catalog.version, catalog.last_translator = "Penstock", "", "Penstock"
    catalog.language_team, catalog.msgid_bugs_address = language, ""
    catalog.creation_date = catalog.revision_date = WHEN
    path_of(language, "po").parent.mkdir(parents=True, exist_ok=True)
    with path_of(language, "po").open("wb") as file:
        write_po(file, catalog, width=0, sort_by_file=True, omit_header=False, include_lineno=False)
    with path_of(language, "mo").open("wb") as file:
        write_mo(file, catalog)
    return sum(1 for message in catalog if message.id and not message.string)


if __name__ == "__main__":
    texts = extracted()
    missing = {language: update(language, texts) for language in LANGUAGES}
    sys.stdout.write(f"{len(texts)} texts; without a translation: {missing}\n")
