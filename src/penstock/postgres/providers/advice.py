"""What to do when a provider's server does not let anybody in: one sentence, for the hint of an error."""

from __future__ import annotations

from penstock.finding import Fix
from penstock.language import N_, joined, phrase
from penstock.postgres.providers import Provider, by_host, named
from penstock.postgres.trouble import ANY_FIREWALL

_THIS_MACHINE = N_("this machine's address")
_TOKENS_OF = {"aws-iam": "rds", "azure-entra": "azure"}  # where the host's name does not tell


def firewall(host: str) -> str:
    """Which firewall swallows the packets of somebody who gets no answer."""
    provider = by_host(host).provider
    way = provider.allow.console
    if not provider.hosts or not way:
        return phrase(ANY_FIREWALL)
    return phrase(
        "The firewall of {provider} swallows the packets: {way}. A private address needs a way into its network.",
        provider=provider.title,
        way=phrase(way, **{**provider.facts(host), "address": phrase(_THIS_MACHINE)}),
    )


def admission(host: str) -> Fix:
    """What ``firewall`` says, as command lines and Terraform."""
    provider = by_host(host).provider
    way = provider.allow.filled(provider.facts(host))
    return Fix(cli=way.cli, terraform=way.terraform) if provider.hosts else Fix()


def tokens(authentication: str, host: str, user: str) -> str:
    """What a role that logs in with tokens may lack."""
    found: Provider | None = by_host(host).provider
    if found is None or not found.tokens:
        found = named(_TOKENS_OF[authentication])
    if found is None:
        return ""
    facts = found.facts(host, role='"' + user.replace('"', '""') + '"')
    identity = phrase("Let the AWS identity rds-db:connect as this user.") if authentication == "aws-iam" else ""
    return joined(*found.tokens.filled(facts).sql, identity, phrase(found.tokens.console, **facts))
