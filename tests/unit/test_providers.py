"""The rows of facts about providers: complete, filled in without a gap, and told apart by the names of hosts."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import get_args

import pytest

from penstock.config import ProviderName
from penstock.finding import Fix
from penstock.postgres.providers import PROVIDERS, Parameter, Provider, Support, by_host, named
from penstock.postgres.providers.row import UNKNOWN

FOLLOWED = [each for each in PROVIDERS if each.support is Support.FULL]
PLACE = re.compile(r"\{(\w+)\}")


def templates(provider: Provider) -> list[Fix]:
    values = [getattr(provider, each.name) for each in fields(provider)]
    return [each for each in values if isinstance(each, Fix)]


def texts(fix: Fix) -> list[str]:
    return [fix.advice, *fix.sql, fix.console, *fix.cli, fix.terraform]


def test_every_provider_that_the_facts_name_is_there() -> None:
    names = [each.name for each in PROVIDERS]
    assert {"auto", *names} == set(get_args(ProviderName))
    assert names.index("heroku") < names.index("aurora") < names.index("rds")  # the first that fits
    assert names[-1] == "generic"
    assert {each.name for each in PROVIDERS if each.support is Support.SNAPSHOT} == {
        "heroku",
        "timescale",
        "digitalocean",
    }
    assert all(each.refusal for each in PROVIDERS if each.support is not Support.FULL)
    assert named("auto") is None
    assert named("neon") is not None


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.name)
def test_templates_ask_only_for_what_is_known(provider: Provider) -> None:
    known = {*UNKNOWN, "parameter", "value", "apply"}
    for fix in templates(provider):
        for text in texts(fix):
            assert set(PLACE.findall(text)) <= known, text


@pytest.mark.parametrize("provider", FOLLOWED, ids=lambda each: each.name)
def test_everything_can_be_said_of_a_provider_that_is_followed(provider: Provider) -> None:
    facts = provider.facts("db.example.com", role='"penstock"', major="16")
    for fix in (
        provider.switch_on(facts),
        provider.set_parameter(Parameter("wal_keep", "9", restarts=True), facts),
        provider.set_parameter(Parameter("max_slot_wal_keep_size", "200GB", restarts=False), facts),
        provider.allow.filled(facts),
        Fix(sql=provider.replicate).filled(facts),
    ):
        assert not PLACE.search(" ".join(texts(fix)).replace("${", "")), fix
    assert provider.switch_on(facts)
    assert provider.title
    assert provider.endpoint_advice
    assert provider.failover
    assert provider.allow or provider.name == "planetscale"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("shop.cluster-abc123.eu-west-1.rds.amazonaws.com", "aurora"),
        ("shop.cluster-ro-abc123.eu-west-1.rds.amazonaws.com", "aurora"),
        ("shop.abc123.eu-west-1.rds.amazonaws.com", "rds"),
        ("shop.postgres.database.azure.com", "azure"),
        ("shop.writer.postgres.database.azure.com", "azure"),
        ("abc.def.europe-west3.sql.goog", "cloudsql"),
        ("abc.def.europe-west3.alloydb-psc.goog", "alloydb"),
        ("db.abcdef.supabase.co", "supabase"),
        ("aws-0-eu-west-1.pooler.supabase.com", "supabase"),
        ("ep-cool-darkness-123456-pooler.us-east-2.aws.neon.tech", "neon"),
        ("p.abcdef.db.postgresbridge.com", "crunchy"),
        ("aws.eu-west-1.pg.psdb.cloud", "planetscale"),
        ("abc.def.tsdb.cloud.timescale.com", "timescale"),
        ("db-do-user-1.b.db.ondigitalocean.com", "digitalocean"),
        ("free.cockroachlabs.cloud", "cockroach"),
        ("wh.abc.eu-west-1.redshift.amazonaws.com", "redshift"),
        ("abc.aws.ybdb.io", "yugabyte"),
        ("db.example.com", "generic"),
        ("", "generic"),
    ],
)
def test_providers_by_host(host: str, name: str) -> None:
    found = by_host(host)
    assert found.provider.name == name
    assert bool(found.mark) is (name != "generic")


def of(name: str) -> Provider:
    found = named(name)
    assert found is not None
    return found


def test_what_hosts_tell() -> None:
    facts = of("aurora").facts("shop.cluster-ro-abc.ap-northeast-2.rds.amazonaws.com")
    assert (facts["server"], facts["region"]) == ("shop", "ap-northeast-2")
    assert of("azure").facts("shop.reader.postgres.database.azure.com")["server"] == "shop"
    assert of("supabase").facts("db.abcdef.supabase.co")["project"] == "abcdef"
    assert of("generic").facts("10.0.0.1")["server"] == "SERVER"


def test_hosts_of_writers_and_of_postgresql_itself() -> None:
    reader = "shop.cluster-ro-abc.eu-west-1.rds.amazonaws.com"
    assert of("aurora").writer_host(reader) == "shop.cluster-abc.eu-west-1.rds.amazonaws.com"
    assert of("aurora").writer_host("shop.cluster-abc.eu-west-1.rds.amazonaws.com") == ""
    azure = of("azure").writer_host("shop.reader.postgres.database.azure.com")
    assert azure == "shop.writer.postgres.database.azure.com"
    assert of("neon").direct_host("ep-a-1-pooler.us-east-2.aws.neon.tech") == "ep-a-1.us-east-2.aws.neon.tech"
    assert of("generic").direct_host("db.example.com") == ""


@pytest.mark.parametrize(
    ("host", "pinned"),
    [
        ("shop-1.abc123.eu-west-1.rds.amazonaws.com", True),
        ("mine.cluster-custom-abc123.eu-west-1.rds.amazonaws.com", True),
        ("shop.cluster-abc123.eu-west-1.rds.amazonaws.com", False),
        ("shop.cluster-ro-abc123.eu-west-1.rds.amazonaws.com", False),
        ("shop.proxy-abc123.eu-west-1.rds.amazonaws.com", False),
    ],
)
def test_endpoints_that_stay_with_one_instance(host: str, pinned: bool) -> None:
    assert bool(re.search(of("aurora").pinned, host)) is pinned


def test_parameters_are_set_where_the_provider_has_them() -> None:
    aurora = of("aurora")
    facts = aurora.facts("shop.cluster-abc.eu-west-1.rds.amazonaws.com", major="16")
    fix = aurora.switch_on(facts)
    assert fix.parameter == "rds.logical_replication = 1"
    assert "--db-parameter-group-family aurora-postgresql16" in fix.cli[0]
    assert fix.cli[-1].startswith("aws rds reboot-db-instance --region eu-west-1")
    assert 'family = "aurora-postgresql16"' in fix.terraform
    at_once = aurora.set_parameter(Parameter("max_slot_wal_keep_size", "200GB", restarts=False), facts)
    assert "ApplyMethod=immediate" in " ".join(at_once.cli)
    assert not any("reboot" in line for line in at_once.cli)
    assert of("generic").set_parameter(Parameter("max_slot_wal_keep_size", "200GB", restarts=False), {}).sql == (
        "ALTER SYSTEM SET max_slot_wal_keep_size = '200GB';",
        "SELECT pg_reload_conf();",
    )
    assert of("neon").set_parameter(Parameter("max_wal_senders", "20"), {}) == Fix()
    both = of("alloydb").switch_on(of("alloydb").facts(""))
    assert "alloydb.logical_decoding=on,alloydb.enable_pglogical=on" in both.cli[0]
