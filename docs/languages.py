"""Keeps the catalogues of src/penstock/locale/ and the translated guides of docs/ in step with what they translate.

``python docs/languages.py`` takes what ``said``, ``phrase`` and ``N_`` are given into each penstock.po, keeps the translations that are
there, and compiles them. What is new has an empty translation afterwards: fill it in and run this again. It also lists the guides
that are stale.

``python docs/languages.py docs/ko/setup.md …`` notes in these pages that they say what the English ones say now.

Tests find what is missing, stale, or filled in differently.
"""

from __future__ import annotations

import hashlib
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

DOCS = Path(__file__).resolve().parent
GUIDES = ("setup", "networks", "failover", "upgrades", "monitoring")
"""Pages of docs/ that are written by hand in every language; those of docs/sources/ are generated."""
MADE_FROM = re.compile(r"<!-- Made from \.\./(\w+)\.md as of (\w+)\. -->\n")

SOURCE = DOCS.parent / "src" / "penstock"
LOCALE = SOURCE / "locale"
LANGUAGES = ("ko", "ja", "zh")
KEYWORDS = {"said": None, "phrase": None, "N_": None}
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


def translations() -> list[Path]:
    """The pages that the guides are to have in other languages."""
    return [DOCS / language / f"{name}.md" for language in LANGUAGES for name in GUIDES]


def original(page: Path) -> Path:
    """The English page that a page translates."""
    return DOCS / page.name


def as_of(page: Path) -> str:
    """What tells one state of an English page from another; where its lines break does not count."""
    return hashlib.sha256(" ".join(page.read_text(encoding="utf-8").split()).encode()).hexdigest()[:12]


def stale(page: Path) -> str:
    """Why a translated page may not say what the English one says; empty if it does."""
    if not page.exists():
        return "it does not exist"
    found = MADE_FROM.match(page.read_text(encoding="utf-8"))
    if not found or found[1] != page.stem:
        return "its first line does not say what it was made from"
    return "" if found[2] == as_of(original(page)) else "the English page has changed since"


def mark(page: Path) -> None:
    """Note in a translated page that it says what the English one says now."""
    text = MADE_FROM.sub("", page.read_text(encoding="utf-8"), count=1)
    line = f"<!-- Made from ../{page.name} as of {as_of(original(page))}. -->\n"
    page.write_text(line + text, encoding="utf-8")


def main(pages: list[str]) -> None:
    """Mark the given pages, or bring the catalogues up to date; and list the pages that are stale."""
    for page in pages:
        if Path(page).resolve() not in translations():
            sys.exit(f"{page} is not a translated guide; they are docs/LANGUAGE/GUIDE.md")
        mark(Path(page).resolve())
    if not pages:
        texts = extracted()
        missing = {language: update(language, texts) for language in LANGUAGES}
        sys.stdout.write(f"{len(texts)} texts; without a translation: {missing}\n")
    for path in translations():
        if why := stale(path):
            sys.stdout.write(f"{path.relative_to(DOCS.parent)}: {why}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
