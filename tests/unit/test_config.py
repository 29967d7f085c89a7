"""The pipe's file: defaults, secrets, patterns, and messages that name the key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from penstock.config import Secret, Source, Tables, load, parse
from penstock.errors import ConfigError
from penstock.observe.log import scrub
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from pathlib import Path

SMALLEST = """
[pipe]
name = "shop"
[source]
dsn = "postgresql://db.example.com/shop"
[destination]
dsn = "chdb:///var/lib/penstock/shop"
"""


def loaded(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "shop.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_the_smallest_file(tmp_path: Path) -> None:
    pipe = loaded(tmp_path, SMALLEST)
    assert (pipe.name, pipe.publication, pipe.slot, pipe.database) == ("shop", "penstock_shop", "penstock_shop", "shop")
    assert (pipe.pipe.mode, pipe.settings.flush_interval, pipe.settings.max_batch_bytes) == ("cdc", 1.0, 64 << 20)


def test_names_that_are_given_are_taken(tmp_path: Path) -> None:
    text = SMALLEST.replace("[source]", '[source]\npublication = "p"\nslot = "s"').replace(
        "[destination]", '[destination]\ndatabase = "d"'
    )
    pipe = loaded(tmp_path, text)
    assert (pipe.publication, pipe.slot, pipe.database) == ("p", "s", "d")


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("1s", 1.0), ("1.5s", 1.5), ("2m", 120.0), ("2min", 120.0), ("1h", 3600.0)]
)
def test_durations(tmp_path: Path, text: str, seconds: float) -> None:
    assert loaded(tmp_path, f'{SMALLEST}[settings]\nflush_interval = "{text}"').settings.flush_interval == seconds


@pytest.mark.parametrize(
    ("addition", "said"),
    [
        ("[settings]\nflush_intervall = 1", "unknown key settings.flush_intervall, did you mean flush_interval?"),
        ("[sources]\ndsn = 1", "unknown key sources, did you mean source?"),
        (
            '[tables.options."public.a"]\nshap = "history"',
            "unknown key tables.options.public.a.shap, did you mean shape?",
        ),
        ("[settings]\nzzz = 1", "unknown key settings.zzz; known are "),
        ('[settings]\nflush_interval = "1 fortnight"', "settings.flush_interval"),
        ('[settings]\nflush_interval = "0s"', "settings.flush_interval"),
        ('[settings]\nmax_batch_bytes = "1kB"', "settings.max_batch_bytes"),
        ("[settings]\nmax_batch_rows = 0", "settings.max_batch_rows"),
        ('[settings]\ndecoding_work_mem = "much"', "settings.decoding_work_mem"),
        ('[settings]\non_unfit = "guess"', "settings.on_unfit"),
        ('[tables]\ntarget = "{tabel}"', "tables.target"),
        ('metadata_prefix = "1 x"', "destination.metadata_prefix"),
        ('[tables]\ntarget = "all"', "tables.target"),
        ('[tables.options."public.a"]\nshape = "round"', "shape"),
        ('[tables]\ninclude = "public.*"', 'tables.include: a list is wanted, as ["…"]'),
        ('ssh = "jump.example.com"', "destination.ssh: a table is wanted"),
        ("[tables]\noptions = 1", "tables.options: a table is wanted"),
        ("[settings]\nflush_interval = true", "settings.flush_interval: a duration is a number with a unit"),
        ("[settings]\nmax_batch_bytes = true", "settings.max_batch_bytes: a size is a number with a unit"),
        ('[settings]\nmax_batch_bytes = "many"', "settings.max_batch_bytes: a size is a number with a unit"),
        ("[settings]\ncopy_tables = true", "settings.copy_tables: a whole number is wanted"),
        ("[settings]\ncopy_tables = 1.5", "settings.copy_tables: a whole number is wanted"),
        ('[settings]\ncopy_tables = "4"', "settings.copy_tables: a whole number is wanted"),
        ("views = 1", "destination.views: true or false is wanted"),
        ('views = "yes"', "destination.views: true or false is wanted"),
        ("database = 1", "destination.database: a text is wanted"),
        ('[settings]\non_unfit = "nul"', 'settings.on_unfit: "nul" is none of "null", "fail"; did you mean "null"?'),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, addition: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"{SMALLEST}{addition}\n")
    assert said in caught.value.message
    assert "shop.toml" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "my-shop", "x" * 42, "shop; drop"])
def test_names_are_identifiers(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"pipe\.name"):
        loaded(tmp_path, SMALLEST.replace('"shop"', f'"{name}"', 1))


def test_missing_sections_are_all_listed() -> None:
    with pytest.raises(ConfigError, match=r"pipe is missing; source is missing; destination is missing"):
        parse({}, origin="x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        load(tmp_path / "nope.toml")
    with pytest.raises(ConfigError, match="is not TOML"):
        loaded(tmp_path, "[pipe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    assert loaded(tmp_path, f"\N{BOM}{SMALLEST}").name == "shop"
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "latin.toml")


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter 2\n")
    assert Secret(env="SHOP_PASSWORD").read() == "hunter 2\n"
    path = tmp_path / "password"
    path.write_text("hunter 2\n", encoding="utf-8")
    assert Secret(file=str(path)).read() == "hunter 2"
    with pytest.raises(ConfigError, match="NOT_SET"):
        Secret(env="PENSTOCK_TEST_NOT_SET").read()
    with pytest.raises(ConfigError, match="nope"):
        Secret(file=str(tmp_path / "nope")).read()


@pytest.mark.parametrize("secret", ["{}", '{ env = "A", file = "b" }', '{ value = "hunter2" }', '"hunter2"'])
def test_a_secret_is_read_from_somewhere_and_never_shown(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ConfigError, match=r"source\.password") as caught:
        loaded(tmp_path, SMALLEST.replace("[destination]", f"password = {secret}\n[destination]"))
    assert "hunter2" not in str(caught.value) + caught.value.hint
    if "value" not in secret:
        assert 'source.password = { env = "NAME" } or { file = "path" }' in scrub(caught.value.message)


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://u:hun@ter2@db:5432/shop", "an @ too many"),
        ("postgresql://u:hun/ter2@db:5432/shop", "a / or ?"),
        ("postgres://u:hun?ter2@db/shop", "port"),
        ("postgresql://u:hun@ter2/shop@db/shop", "an @ too many"),
        ("postgresql://u@db:five/shop", "port"),
    ],
)
def test_no_piece_of_a_password_is_taken_for_a_host(dsn: str, said: str) -> None:
    """libpq would, and every message that names the host would show it."""
    with pytest.raises(ConfigError, match=said) as caught:
        Connector(Source(dsn=dsn), "test")
    assert not {"hun", "ter2", "five"} & set(re.findall(r"\w+", caught.value.message + caught.value.hint))


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql:///shop",
        "postgresql://u:p%40@[::1]:5432,db.example.com,10.0.0.1:1/shop?application_name=a@b",
        "postgresql://u@%2Fvar%2Frun/shop",
        "host=db user=a@b password=p@/?",
    ],
)
def test_what_libpq_takes_is_taken(dsn: str) -> None:
    assert Connector(Source(dsn=dsn), "test")


def test_patterns() -> None:
    tables = Tables(include=("public.*", "sales.order?"), exclude=("public.audit_*",))
    matching = ["public.a", "public.audit_", "public.Audit_x", "sales.orders", "sales.orders2", "Public.a", "other.a"]
    assert [name for name in matching if tables.matches(name)] == ["public.a", "public.Audit_x", "sales.orders"]
    assert Tables(include=("public.[a]*",)).matches("public.[a]*")


def test_targets() -> None:
    tables = Tables.model_validate({"target": "{schema}_{table}", "options": {"public.a": {"target": "b"}}})
    assert (tables.target_of("public", "a"), tables.target_of("public", "{schema}")) == ("b", "public_{schema}")
    assert tables.target_of("{table}", "\\1") == "{table}_\\1"


def test_a_provider_that_there_is_not() -> None:
    ends = {"pipe": {"name": "shop"}, "destination": {"dsn": "chdb:///x"}}
    with pytest.raises(ConfigError) as caught:
        parse({**ends, "source": {"dsn": "host=x", "provider": "aurorra"}}, origin="x")
    assert 'source.provider: "aurorra" is none of "auto", "aurora", ' in caught.value.message
    assert caught.value.message.endswith('did you mean "aurora"?')
    with pytest.raises(ConfigError, match=r'"awss" is none of "auto", .* "generic"'):
        parse({**ends, "source": {"dsn": "host=x", "provider": "awss"}}, origin="x")
