"""How a provider's server becomes a source, as a page in Markdown: made from the facts that checks and fixes are made from.

docs/sources/ holds the pages in every language; ``docs/generate.py`` writes them.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from penstock.finding import Fix
from penstock.language import LANGUAGES, choose, said
from penstock.postgres.providers import PROVIDERS, Parameter, Provider, Support

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROLE = (
    "CREATE USER penstock PASSWORD 'choose-one';",
    "GRANT USAGE ON SCHEMA public TO penstock;",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO penstock;",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO penstock;",
)
_PUBLICATION = (
    "CREATE PUBLICATION penstock FOR TABLE orders, customers WITH (publish_via_partition_root = true);",
    "-- 15 and later: CREATE PUBLICATION penstock FOR TABLES IN SCHEMA public WITH (publish_via_partition_root = true);",
)
_SHOWN = "SHOW wal_level;  -- logical"


_SPOKEN = {"en": "English", "ko": "한국어", "ja": "日本語", "zh": "中文"}
_FOLLOWED = {Support.FULL: "yes", Support.SNAPSHOT: "one copy only", Support.NONE: "no"}


def guides() -> dict[str, str]:
    """A page for each provider in each language, and their list, by the path in docs/sources/."""
    pages = {
        _path(provider, language): copy_context().run(_spoken, provider, language)
        for language in LANGUAGES
        for provider in PROVIDERS
    }
    return {"README.md": "\n".join(_list()), **pages}


def _spoken(provider: Provider, language: str) -> str:
    """The page, with links to the others below its title."""
    choose(language)
    title, _, body = guide(provider).partition("\n")
    up = "" if language == "en" else "../"
    others = " · ".join(f"[{name}]({up}{_path(provider, each)})" for each, name in _SPOKEN.items() if each != language)
    return f"{title}\n\n{others}\n{body}"


def _path(provider: Provider, language: str) -> str:
    return f"{provider.name}.md" if language == "en" else f"{language}/{provider.name}.md"


def _list() -> Iterator[str]:
    yield "# Sources\n"
    yield "What each provider needs, step by step. `penstock check` finds what is missing, and prints the same for your server.\n"
    yield "| provider | followed | known by | |"
    yield "|---|---|---|---|"
    for provider in sorted(PROVIDERS, key=lambda each: each.title):
        pages = " · ".join(f"[{name}]({_path(provider, language)})" for language, name in _SPOKEN.items())
        marks = ", ".join(f"`{mark.replace(':', ' ', 1)}`" for mark in provider.marks if "|" not in mark)
        known = marks or ("its host" if provider.hosts else "nothing else")
        yield f"| {provider.title} | {_FOLLOWED[provider.support]} | {known} | {pages} |"


def guide(provider: Provider) -> str:
    """The page of one provider in the chosen language."""
    return "\n".join(_page(provider)).rstrip("\n") + "\n"


def _page(provider: Provider) -> Iterator[str]:
    yield f"# {provider.title}\n"
    if provider.support is not Support.FULL:
        yield said("{title}: {reason}.", title=provider.title, reason=said(provider.refusal)) + "\n"
        if provider.support is Support.NONE:
            return
        yield said('Set mode = "snapshot" in [pipe]: the tables are copied once.') + "\n"
    else:
        yield said(
            "PostgreSQL {oldest} or newer. `penstock check` says which of these steps are still to be done.",
            oldest=provider.oldest,
        )
        yield ""
    facts = provider.facts("", role="penstock")
    for number, (heading, body) in enumerate(_steps(provider, facts), 1):
        yield f"## {number}. {heading}\n"
        yield from body
    if provider.notes:
        heading = said("Worth knowing")
        yield f"## {heading}\n"
        yield from (f"* {said(note)}" for note in provider.notes)
        yield ""
    if provider.manual:
        yield said("The provider's own page: {url}", url=f"<{provider.manual}>")


def _steps(provider: Provider, facts: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    streams = provider.support is Support.FULL
    if streams:
        yield said("Switch logical decoding on"), _logical(provider, facts)
    replicate = Fix(sql=provider.replicate).filled(facts).sql if streams else ()
    who = said(
        "As {administrator}, in the database that is replicated, and for each of its schemas:",
        administrator=f"`{provider.administrator}`",
    )
    yield said("A role for Penstock"), [who, "", *_code("sql", [*_ROLE, *replicate])]
    if streams:
        yield said("A publication"), _publication()
    if provider.allow:
        yield said("Let Penstock through"), _ways(provider.allow.filled(facts))
    if provider.tokens:
        yield said("Tokens in place of a password"), _ways(provider.tokens.filled(facts))
    if provider.endpoint_advice:
        advice = [said(provider.endpoint_advice), *([said(provider.direct_advice)] if provider.direct_advice else [])]
        yield said("The right host"), [f"{' '.join(advice)}\n"]
    keep = provider.set_parameter(Parameter("max_slot_wal_keep_size", "200GB", restarts=False), facts)
    first = provider.switch_on(facts).parameter
    if keep.console and first:
        keep = Fix(advice=said("{parameter}, in the same way as {first}", parameter=keep.parameter, first=first))
    if streams and keep:
        yield (
            said("Keep enough WAL"),
            [said("So much WAL is kept for a pipe that stands still; −1 is no limit.") + "\n", *_ways(keep)],
        )
    if provider.failover:
        yield said("After a failover"), [f"{said(provider.failover)}\n"]


def _logical(provider: Provider, facts: dict[str, str]) -> list[str]:
    fix = provider.switch_on(facts)
    shown = [said("It is on when the server says so:"), "", *_code("sql", [_SHOWN])]
    return [*_ways(fix), *shown]


def _publication() -> list[str]:
    owns = said(
        "Where the role owns the tables leave source.publication empty: Penstock makes and maintains its own publication."
    )
    given = said(
        "Otherwise make one as the owner, and name it in source.publication. "
        "Each table in it needs a primary key, or REPLICA IDENTITY FULL."
    )
    return [f"{owns} {given}", "", *_code("sql", _PUBLICATION)]


def _ways(fix: Fix) -> list[str]:
    lines = ["**SQL**", "", *_code("sql", fix.sql)] if fix.sql else []
    lines += [f"{fix.advice}\n"] if fix.advice else []
    if fix.console:
        label = said("Console")
        lines += [f"**{label}**: {fix.console}\n"]
    if fix.cli:
        lines += ["**CLI**", "", *_code("sh", fix.cli)]
    if fix.terraform:
        lines += ["**Terraform**", "", *_code("terraform", [fix.terraform])]
    return lines


def _code(language: str, lines: tuple[str, ...] | list[str]) -> list[str]:
    return [f"```{language}", *lines, "```\n"]
