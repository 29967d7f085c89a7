"""How a provider's server becomes a source, as a page in Markdown: made from the facts that checks and fixes are made from.

docs/sources/ holds the pages in every language; ``docs/generate.py`` writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.finding import Fix
from penstock.language import said
from penstock.postgres.providers import Parameter, Provider, Support

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
    return [*(_ways(fix) if fix else [said("It is on from the start.") + "\n"]), *shown]


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
    lines = [f"{fix.advice}\n"] if fix.advice else []
    if fix.console:
        label = said("Console")
        lines += [f"**{label}**: {fix.console}\n"]
    if fix.sql:
        lines += ["**SQL**", "", *_code("sql", fix.sql)]
    if fix.cli:
        lines += ["**CLI**", "", *_code("sh", fix.cli)]
    if fix.terraform:
        lines += ["**Terraform**", "", *_code("terraform", [fix.terraform])]
    return lines


def _code(language: str, lines: tuple[str, ...] | list[str]) -> list[str]:
    return [f"```{language}", *lines, "```\n"]
