"""What the pages say is so: TOML parses, links lead somewhere, commands and targets exist, generated pages are up to date."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest
from tests.scripts import ROOT, script
from typer.main import get_command

from penstock.cli.main import app
from penstock.config import load, parse
from penstock.pipeline.lifecycle import State
from penstock.plan import Shape
from penstock.setup.asked import CHOICES

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = script("generate").pages()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{page.relative_to(ROOT)}", body)
        for page in PAGES
        for found, body in FENCE.findall(page.read_text())
        if found == language
    ]


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_is_toml_to_look_at() -> None:
    assert blocks("toml")


@pytest.mark.parametrize(("page", "body"), blocks("toml"))
def test_toml_in_pages_is_a_pipe(page: str, body: str) -> None:
    assert parse(tomllib.loads(body), origin=page).name


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_are_pipes(path: Path) -> None:
    assert load(path).name == path.stem


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == GENERATED[name].rstrip("\n") + "\n", "run: make docs"


def test_there_is_a_page_for_every_provider_and_no_other() -> None:
    there = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs" / "sources").rglob("*.md")}
    assert there == {name for name in GENERATED if name.startswith("sources/")}
    assert {"sources/aurora.md", "sources/ko/azure.md", "sources/ja/cloudsql.md", "sources/zh/generic.md"} <= there


def test_makefile_targets_named_in_pages_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert {"demo", "test", "lint", "bench"} <= named
    assert named <= targets


def test_commands_named_in_pages_exist() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]  # the root is a group
    named = {name for page in PAGES for name in re.findall(r"(?:`|^)penstock ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert {"run", "check", "query"} <= named
    assert named <= commands


def test_the_glossary_has_the_states_and_shapes_there_are() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    for state in State:
        assert f"| {state.value} |" in text
    for shape in Shape:
        assert f"`{shape.value}`" in text


def test_no_key_of_the_configuration_lacks_its_meaning() -> None:
    rows = [
        line.split(" | ")
        for line in (ROOT / "docs" / "configuration.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) > 30
    assert [row[0] for row in rows if len(row[-1].strip(" |")) < 8] == []


def test_the_picture_shows_the_live_view() -> None:
    picture = (ROOT / "docs" / "live.svg").read_text()
    shown = picture.replace("&#160;", " ")
    for word in ("penstock", "public.orders", "streaming", "changes/s"):
        assert word in shown


def test_the_page_on_setup_lists_what_it_can_be_told() -> None:
    page = (ROOT / "docs" / "setup.md").read_text().partition("## Names for")[2]
    assert set(re.findall(r"`([a-z_]+)`[,| ]", page)) >= set(CHOICES)
