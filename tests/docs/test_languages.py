"""Every text of a finding exists in every language, says the same names and statements, and is what the code says today."""

from __future__ import annotations

import ast
import gettext
import pickle
import re
from contextvars import copy_context
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING

import pytest
from tests.scripts import ROOT, script

from penstock import language
from penstock.errors import PenstockError
from penstock.language import LANGUAGES, N_, choose, joined, phrase, said, spoken, wanted
from penstock.setup.step import NAMES

if TYPE_CHECKING:
    from babel.messages import Catalog

TRANSLATED = [each for each in LANGUAGES if each != "en"]
VERBATIM = re.compile(r"[\w.]+_\w+|\bsource\.\w+|\btables\.\w+|\bpenstock \w+\b|\b[A-Z]{2,}[A-Z_.]*\b|\d{4,}")
"""Names of settings, statements, ports, which are the same in every language."""
SPOKEN = {"BLOCKING", "WARNING", "WORTH", "KNOWING", "NTP", "NAME", "DSN", "CLI", "READ", "OF", "ID", "AZ"}


SCRIPT = script("languages")
TEXTS = {message.id for message in SCRIPT.extracted() if message.id}
GUIDES = SCRIPT.translations()
SOURCES = {page for page in (ROOT / "docs" / "sources").rglob("*.md") if page.name != "README.md"}
IN_EVERY_LANGUAGE = sorted({*GUIDES, *(SCRIPT.original(page) for page in GUIDES), *SOURCES})
FENCE = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
LETTERS = {"ko": "[가-힣]", "ja": "[ぁ-んァ-ヶ]", "zh": "[一-鿿]"}
"""What each language is written with: Hangul and kana are of one language alone."""


def catalogue(name: str) -> Catalog:
    return SCRIPT.read(name)  # type: ignore[no-any-return]


def fields(template: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def test_there_are_texts() -> None:
    assert len(TEXTS) > 200
    assert {"it has no primary key", "the role may not replicate"} <= TEXTS
    assert set(SCRIPT.LANGUAGES) == set(TRANSLATED)


@pytest.mark.parametrize("name", TRANSLATED)
def test_no_text_is_missing_stale_or_doubtful(name: str) -> None:
    there = {message.id: message for message in catalogue(name) if message.id}
    assert sorted(TEXTS - there.keys()) == [], "run: make docs, then translate"
    assert sorted(there.keys() - TEXTS) == [], "run: make docs"
    assert [message.id for message in there.values() if not message.string or message.fuzzy] == []


@pytest.mark.parametrize("name", TRANSLATED)
def test_translations_are_filled_in_as_the_texts_are(name: str) -> None:
    for message in catalogue(name):
        if message.id:
            assert fields(message.string) == fields(message.id), message.id


@pytest.mark.parametrize("name", TRANSLATED)
def test_names_and_statements_are_not_translated(name: str) -> None:
    for message in catalogue(name):
        if message.id:
            for word in set(VERBATIM.findall(message.id)) - SPOKEN:
                assert word in message.string, f"{word}: {message.id}"


@pytest.mark.parametrize("name", TRANSLATED)
def test_no_translation_is_of_another_language(name: str) -> None:
    for message in catalogue(name):
        if message.id:
            assert foreign(message.string, name) == [], message.string


@pytest.mark.parametrize("name", TRANSLATED)
def test_what_is_compiled_is_what_is_written(name: str) -> None:
    with SCRIPT.path_of(name, "mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for message in catalogue(name):
        if message.id:
            assert compiled.gettext(message.id) == message.string, "run: make docs"


def foreign(text: str, name: str) -> list[str]:
    """Letters that only another language has."""
    return [found for each in ("ko", "ja") if each != name for found in re.findall(LETTERS[each], text)]


def guide_id(page: Path) -> str:
    return f"{page.parent.name}/{page.stem}"


def parts(page: Path) -> dict[str, object]:
    """What a page has in every language: the same code, and as many headings, rows, points and links."""
    text = page.read_text()
    prose = FENCE.sub("", text)
    return {
        "code": FENCE.findall(text),
        "headings": re.findall(r"^#+ ", prose, re.MULTILINE),
        "columns of each row": [line.count(" | ") for line in prose.splitlines() if line.startswith("|")],
        "points": len(re.findall(r"^\* ", prose, re.MULTILINE)),
        "links": len(re.findall(r"\]\(", prose)),
        "words in code": sorted({" ".join(each.split()) for each in re.findall(r"`([^`]+)`", prose)}),
    }


def test_guides_are_in_every_language_and_no_others() -> None:
    there = {page for name in TRANSLATED for page in (ROOT / "docs" / name).rglob("*")}
    assert there == set(GUIDES)
    assert {guide_id(page) for page in GUIDES} >= {"ko/setup", "ja/networks", "zh/failover", "ko/upgrades"}


@pytest.mark.parametrize("page", GUIDES, ids=guide_id)
def test_a_guide_says_what_the_english_one_says(page: Path) -> None:
    assert SCRIPT.stale(page) == "", "translate what has changed, then: python docs/languages.py PAGE"
    english = parts(SCRIPT.original(page))
    assert english["headings"]
    assert parts(page) == english
    prose = [line for line in page.read_text().splitlines() if not line.startswith("[English]")]
    assert len(re.findall(LETTERS[page.parent.name], "".join(prose))) > 250
    assert foreign("".join(prose), page.parent.name) == []


@pytest.mark.parametrize("page", IN_EVERY_LANGUAGE, ids=guide_id)
def test_a_page_leads_to_itself_in_the_other_languages(page: Path) -> None:
    folder = page.parent.parent if page.parent.name in TRANSLATED else page.parent
    line = next(line for line in page.read_text().splitlines() if line.startswith("["))
    found = {(page.parent / link).resolve() for link in re.findall(r"\]\((.+?)\)", line)}
    every = {folder / page.name, *(folder / name / page.name for name in TRANSLATED)}
    assert found == every - {page}


def test_a_stale_guide_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCRIPT, "DOCS", tmp_path)
    english, page = tmp_path / "setup.md", tmp_path / "ko" / "setup.md"
    english.write_text("# Setup\n\nOne two.\n")
    assert "not exist" in SCRIPT.stale(page)
    page.parent.mkdir()
    page.write_text("# 설정\n")
    assert "first line" in SCRIPT.stale(page)
    SCRIPT.mark(page)
    SCRIPT.mark(page)
    assert SCRIPT.stale(page) == ""
    assert page.read_text().count("<!--") == 1
    english.write_text("# Setup\n\nOne\ntwo.\n")
    assert SCRIPT.stale(page) == ""
    english.write_text("# Setup\n\nOne, two.\n")
    assert "has changed" in SCRIPT.stale(page)


def test_names_of_steps_are_marked() -> None:
    """They are shown by a name that programs know them by, too."""
    names = set()
    for path in sorted((ROOT / "src" / "penstock" / "setup").glob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id in ("Step", "right", "by_hand", "_attribute", "no_api"):
                names |= {each.value for each in call.args[:1] if isinstance(each, ast.Constant)}
            elif isinstance(call.func, ast.Name) and call.func.id == "change" and isinstance(call.args[1], ast.Tuple):
                names |= {each.value for each in call.args[1].elts[:1] if isinstance(each, ast.Constant)}
    assert {"role", "parameter group", "firewall"} <= names
    assert names - set(NAMES) == {"IAM", "wal_level", "wal_sender_timeout"}
    assert set(NAMES) <= names


def test_texts_are_literals_or_marked() -> None:
    """What Babel cannot see would stay English for ever."""
    for path in sorted(each for each in (ROOT / "src").rglob("*.py") if each.name != "language.py"):
        tree = ast.parse(path.read_text())
        for call in _calls(tree):
            first = call.args[0]
            literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
            marked = isinstance(first, (ast.Name, ast.Attribute, ast.Subscript)) and call.func.id != "N_"  # type: ignore[attr-defined]
            assert literal or marked, f"{path.name}:{call.lineno}"
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):  # into which Babel does not look
                hidden = [call for call in _calls(node) if isinstance(call.args[0], ast.Constant)]
                assert not hidden, f"{path.name}:{node.lineno}"


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("said", "phrase", "N_")
    ]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ja_JP.eucJP"}, "ja"),
        ({"LC_ALL": "zh_CN.UTF-8", "LANG": "ko_KR.UTF-8"}, "zh"),
        ({"LANGUAGE": "fr:ja:en", "LC_ALL": "C"}, "ja"),
        ({"LANGUAGE": "en:ko"}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "zh-Hans"}, "zh"),
    ],
)
def test_the_language_of_the_environment(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wanted() == expected


def test_what_is_said() -> None:
    def spoken(name: str) -> str:
        choose(name)
        return said("the role may not read {tables}", tables="public.t")

    assert copy_context().run(spoken, "en") == "the role may not read public.t"
    assert copy_context().run(spoken, "ko") == "롤이 public.t을(를) 읽을 수 없습니다"
    assert copy_context().run(spoken, "ja") == "ロールは public.t を読めません"
    assert copy_context().run(spoken, "zh") == "该角色无权读取 public.t"
    assert said("the role may not read {tables}", tables="x") == "the role may not read x"  # chosen there, not here
    assert said(N_("a text of tomorrow {{}}")) == "a text of tomorrow {}"
    with pytest.raises(ValueError, match="xx"):
        choose("xx")


def test_a_phrase_is_english_until_it_is_spoken() -> None:
    inner = phrase("the role may not read {tables}", tables="{x}")
    error = PenstockError(joined(inner, "", "…"), hint=phrase("it has no primary key"))

    def in_korean(text: str) -> str:
        choose("ko")
        return spoken(text)

    assert str(error) == "the role may not read {x} …"
    assert copy_context().run(in_korean, error.message) == "롤이 {x}을(를) 읽을 수 없습니다 …"
    assert copy_context().run(in_korean, pickle.loads(pickle.dumps(error)).hint) == "기본 키가 없습니다"
    assert copy_context().run(in_korean, "plain {text}") == "plain {text}"


def test_a_language_is_chosen_from_the_package() -> None:
    assert Path(language.LOCALE).is_dir()
