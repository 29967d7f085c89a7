"""Tokens of Amazon and Microsoft instead of a password: a fresh one for each connection, and never without TLS."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from psycopg import sql
from tests.fix_ssh import USER
from tests.ways import refused

from penstock.config import Source, Ssh
from penstock.errors import ConfigError, SourceRefusedError, SourceUnavailableError
from penstock.postgres import tokens
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_ssh import JumpServer
    from tests.fix_tls import Tls

pytestmark = pytest.mark.pg("== 15")
AURORA = "shop.cluster-abc123.eu-west-1.rds.amazonaws.com"
AZURE = "shop.postgres.database.azure.com"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dt.datetime], None]:
    """Credentials, and a clock that stands where it is set."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "geheim")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    tokens._client.cache_clear()
    import botocore.auth

    def at(moment: dt.datetime) -> None:
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: moment)

    return at


def set_password(tls: Tls, password: str) -> None:
    with tls.server.connect() as connection:
        connection.execute(sql.SQL("alter role tls password {}").format(sql.Literal(password)))


def test_a_fresh_token_of_amazons_for_each_connection(
    tls: Tls, aws: Callable[[dt.datetime], None], jump: JumpServer, ssh_key: Path
) -> None:
    dsn = f"host={AURORA} hostaddr=127.0.0.1 port={tls.server.port} user=tls dbname=postgres sslmode=require"
    source = Source(dsn=dsn, authentication="aws-iam")
    ssh = Ssh(host="127.0.0.1", port=jump.port, user=USER, key=str(ssh_key), known_host_key=jump.line)
    for minute, tunnel in ((0, None), (10, None), (20, ssh)):
        aws(dt.datetime(2026, 1, 1, 12, minute))
        token = tokens.token(source, Connector(source, "t")._parameters)
        assert token.startswith(f"{AURORA}:{tls.server.port}/?Action=connect&DBUser=tls&")
        assert f"20260101T12{minute:02}00Z" in token
        assert "%2Feu-west-1%2Frds-db%2F" in token
        refused(source, SourceRefusedError, "password authentication failed", 'GRANT rds_iam TO "tls";')
        set_password(tls, token)
        connector = Connector(source.model_copy(update={"ssh": tunnel}), "t")
        for connect in (connector.connect, lambda made=connector: made.replication({})):
            with contextlib.closing(connect()) as connection:
                assert connection.pgconn.ssl_in_use


def test_regions(aws: Callable[[dt.datetime], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def region(host: str, **more: str) -> str:
        made = tokens.token(Source(dsn="", authentication="aws-iam", **more), {"host": host, "user": "u"})
        return made.split("%2F")[2]

    assert region("x.abc.ap-northeast-2.rds.amazonaws.com") == "ap-northeast-2"
    assert region("x.abc.rds.cn-north-1.amazonaws.com.cn") == "cn-north-1"
    assert region("x.abc.us-gov-west-1.rds.amazonaws.com") == "us-gov-west-1"
    assert region("db.example.com", region="sa-east-1") == "sa-east-1"
    with pytest.raises(ConfigError, match="region of the source is not known") as caught:
        region("db.example.com")
    assert 'region = "…"' in caught.value.hint
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert region("db.example.com") == "eu-north-1"


def test_no_credentials(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    tokens._client.cache_clear()
    source = Source(dsn=f"host={AURORA} user=u sslmode=require", authentication="aws-iam")
    refused(source, SourceRefusedError, f"no token for u at {AURORA}: Unable to locate credentials", "AWS_PROFILE")


class Entra:
    """Stands in for azure-identity's chain, which asks the machine's own metadata service."""

    authorities: list[str]
    scopes: list[str]
    error: Exception | None = None
    secret = ""

    def __init__(self, *, authority: str) -> None:
        self.authorities.append(authority)

    def get_token(self, scope: str) -> AccessToken:
        self.scopes.append(scope)
        if self.error:
            raise self.error
        return AccessToken(self.secret, 0)


@pytest.fixture
def entra(monkeypatch: pytest.MonkeyPatch) -> type[Entra]:
    made: type[Entra] = type("Made", (Entra,), {"authorities": [], "scopes": []})
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", made)
    tokens._credential.cache_clear()
    return made


def test_a_token_of_entras_for_each_connection(tls: Tls, entra: type[Entra]) -> None:
    dsn = f"host={AZURE} hostaddr=127.0.0.1 port={tls.server.port} user=tls dbname=postgres sslmode=require"
    connector = Connector(Source(dsn=dsn, authentication="azure-entra"), "t")
    entra.secret = "before"
    for token in ("first", "second"):
        set_password(tls, token)
        refused(Source(dsn=dsn, authentication="azure-entra"), SourceRefusedError, "authentication failed", "pgaadauth")
        entra.secret = token
        connector.connect().close()
    assert set(entra.scopes) == {"https://ossrdbms-aad.database.windows.net/.default"}
    assert entra.authorities == ["login.microsoftonline.com"]


def test_azures_clouds_and_what_entra_says(entra: type[Entra]) -> None:
    for host, authority, scope in (
        (
            "x.postgres.database.chinacloudapi.cn",
            "login.chinacloudapi.cn",
            "https://ossrdbms-aad.database.chinacloudapi.cn/.default",
        ),
        (
            "x.postgres.database.usgovcloudapi.net",
            "login.microsoftonline.us",
            "https://ossrdbms-aad.database.usgovcloudapi.net/.default",
        ),
    ):
        entra.secret = "t"
        assert tokens.token(Source(dsn="", authentication="azure-entra"), {"host": host}) == "t"
        assert (entra.authorities[-1], entra.scopes[-1]) == (authority, scope)
    source = Source(dsn=f"host={AZURE} user=u sslmode=require", authentication="azure-entra")
    entra.error = ClientAuthenticationError("no credential worked\nmany lines of what was tried")
    refused(source, SourceRefusedError, f"no token for {AZURE}: no credential worked", "az login")
    entra.error = ServiceRequestError("no route")
    refused(source, SourceUnavailableError, "no route", "tries again")


@pytest.mark.parametrize("extra", ["aws", "azure"])
def test_an_extra_that_is_not_installed(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("boto3", "azure.core.exceptions"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    kind = {"aws": "aws-iam", "azure": "azure-entra"}[extra]
    source = Source(dsn="host=h user=u sslmode=require", authentication=kind)  # type: ignore[arg-type]
    refused(source, ConfigError, f"need the extra {extra}", f"penstock[{extra}]")


def test_a_token_goes_nowhere_without_tls() -> None:
    for dsn, hint in (
        ("host=h user=u", "sslmode=verify-full"),
        ("host=h user=u sslmode=prefer", "sslmode=verify-full"),
        ("host=h user=u sslmode=require password=x", "Take the password out"),
    ):
        refused(Source(dsn=dsn, authentication="aws-iam"), ConfigError, 'authentication = "aws-iam"', hint)
