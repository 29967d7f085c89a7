"""Reaching the source: several hosts, IPv6, names that move, tokens instead of a password, and the words for what fails."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import traceback
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from psycopg import sql
from tests.fix_ssh import USER
from tests.servers.postgres import HBA, PostgresServer, free_port

from penstock.config import Source, Ssh, parse
from penstock.control.checks import check
from penstock.errors import ConfigError, PenstockError, SourceRefusedError, SourceUnavailableError
from penstock.postgres import tokens
from penstock.postgres.connection import Connector, translate
from penstock.postgres.providers import advice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_proxy import Proxy
    from tests.fix_ssh import JumpServer
    from tests.fix_tls import Tls

pytestmark = pytest.mark.pg("== 15")
AURORA = "shop.cluster-abc123.eu-west-1.rds.amazonaws.com"
AZURE = "shop.postgres.database.azure.com"


def refused(source: Source, kind: type[PenstockError], message: str, hint: str) -> None:
    with pytest.raises(PenstockError) as caught:
        Connector(source, "t").connect()
    assert message in caught.value.message
    assert hint in caught.value.hint, caught.value.hint
    assert type(caught.value) is kind
    assert "X-Amz-Signature" not in "".join(traceback.format_exception(caught.value))


# Several hosts


@pytest.fixture(scope="module")
def standby(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server that takes no writes, as a standby of nobody."""
    with PostgresServer(postgres.version) as server:
        server.stop()
        server.add_file("standby.signal", "")
        server.start()
        yield server


def test_the_host_that_takes_writes_is_found(postgres: PostgresServer, standby: PostgresServer) -> None:
    both = {"host": "127.0.0.1,localhost,127.0.0.1", "port": f"{free_port()},{standby.port},{postgres.port}"}
    for wish, expected in (("read-write", postgres), ("primary", postgres), ("standby", standby), ("any", standby)):
        connector = Connector(Source(dsn=postgres.dsn(target_session_attrs=wish, **both)), "t")
        for connect in (connector.connect, lambda made=connector: made.replication({})):
            if connect == connector.connect or expected is postgres:
                with contextlib.closing(connect()) as connection:
                    assert connection.info.port == expected.port, wish
    swapped = {"host": "127.0.0.1,127.0.0.1", "port": f"{postgres.port},{standby.port}"}
    for wish, expected in (("prefer-standby", standby), ("read-write", postgres)):
        source = Source(dsn=postgres.dsn(target_session_attrs=wish, load_balance_hosts="random", **swapped))
        with contextlib.closing(Connector(source, "t").connect()) as connection:
            assert connection.info.port == expected.port


def test_what_is_said_of_several_hosts(postgres: PostgresServer, standby: PostgresServer) -> None:
    dead = free_port()
    given = {"host": "127.0.0.1,127.0.0.1", "port": f"{standby.port},{dead}", "target_session_attrs": "read-write"}
    refused(
        Source(dsn=postgres.dsn(**given)), SourceUnavailableError, f"127.0.0.1:{standby.port}/postgres: ", "listens"
    )
    refused(Source(dsn=postgres.dsn(**given)), SourceUnavailableError, f"127.0.0.1:{dead}/postgres: ", "listens")
    refused(Source(dsn=postgres.dsn(**given)), SourceUnavailableError, "session is read-only", "listens")
    password = {**given, "password": "wrong"}  # what a server says outweighs that another one is not there
    refused(Source(dsn=postgres.dsn(**password)), SourceRefusedError, "password authentication failed", "password")


def test_hosts_and_ports_that_do_not_match(postgres: PostgresServer) -> None:
    refused(
        Source(dsn="host=a,b,c port=1,2 user=x"), ConfigError, "names 3 hosts, but 3 of host, 2 of port", "one port"
    )


@pytest.mark.parametrize(
    ("dsn", "where"),
    [
        ("host=a,b port=1,2 dbname=d", "a,b:1,2/d"),
        ("postgresql://u@[fe80::1]/d", "[fe80::1]:5432/d"),
        ("hostaddr=::1 user=u", "[::1]:5432/u"),
        ("service=s", "service s"),
        ("dbname=d", "the local socket:5432/d"),
    ],
)
def test_how_a_source_is_named(dsn: str, where: str) -> None:
    assert Connector(Source(dsn=dsn), "t").where == where


# Addresses


def test_ipv6(jump_server: Callable[..., JumpServer], ssh_key: Path, postgres: PostgresServer) -> None:
    hba = HBA + "host all,replication all ::1/128 scram-sha-256\n"
    with PostgresServer(postgres.version, {"listen_addresses": "127.0.0.1,::1"}, hba) as server:
        jump = jump_server(host="::1")
        ssh = Ssh(host="::1", port=jump.port, user=USER, key=str(ssh_key), known_host_key=jump.line)
        dsn = f"postgresql://postgres:penstock@[::1]:{server.port}/postgres"
        for source in (Source(dsn=dsn), Source(dsn=dsn, ssh=ssh)):
            with contextlib.closing(Connector(source, "t").connect()) as connection:
                assert connection.execute("select host(inet_server_addr())").fetchone() == ("::1",)
        assert jump.targets == [("::1", server.port)]


def test_a_name_is_resolved_for_each_connection(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failover moves the name to another address: what it was before is nowhere kept."""
    found = socket.getaddrinfo
    address = ["127.0.0.2"]  # nobody listens there

    def resolve(host: str, *words: Any, **more: Any) -> Any:
        return found(address[0] if host == "writer.example.test" else host, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    source = Source(dsn=postgres.dsn(host="writer.example.test"))
    refused(source, SourceUnavailableError, "Connection refused", "listens")
    connector = Connector(source, "t")
    for moved in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        address[0] = moved
        with contextlib.suppress(SourceUnavailableError):
            connector.connect().close()
            assert moved == "127.0.0.1"
            continue
        assert moved == "127.0.0.2"


# What fails on the way


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        (
            AURORA,
            "Amazon Aurora swallows the packets: RDS → Databases → shop → Connectivity & security → VPC security groups",
        ),
        ("shop.abc.eu-west-1.rds.amazonaws.com", "VPC security groups"),
        (AZURE, "Azure portal → shop → Settings → Networking → Firewall rules → Add this machine's address"),
        ("db.abcdefgh.supabase.co", "Network Restrictions"),
        ("ep-x-1.eu-central-1.aws.neon.tech", "IP Allow"),
        ("p.abc.db.postgresbridge.com", "Firewall → Add rule"),
        ("db.example.com", "A firewall between here and there"),
    ],
)
def test_the_firewall_of_each_provider(host: str, hint: str) -> None:
    assert hint in advice.firewall(host)


def test_check_names_the_firewall(postgres: PostgresServer, proxy_to: Callable[[int], Proxy], tmp_path: Path) -> None:
    proxy = proxy_to(postgres.port)
    proxy.blackhole()
    dsn = postgres.dsn(host=AURORA, hostaddr="127.0.0.1", port=proxy.port, connect_timeout=2)
    raw = {"pipe": {"name": "x"}, "source": {"dsn": dsn}, "destination": {"dsn": "clickhouse://127.0.0.1:1"}}
    (found,) = [each for each in check(parse(raw, origin="x.toml"), tmp_path) if each.check == "source_reachable"]
    assert "VPC security groups" in found.fix.advice
    assert "aws ec2 authorize-security-group-ingress --region eu-west-1" in found.fix.cli[0]
    assert "aws_vpc_security_group_ingress_rule" in found.fix.terraform


def test_no_way_and_no_name() -> None:
    refused(Source(dsn="host=no.such.host.invalid user=x"), SourceUnavailableError, "no.such.host.invalid", "DNS")
    refused(
        Source(dsn="host=127.0.0.1 port=1 user=x"), SourceUnavailableError, "Connection refused", "listen_addresses"
    )
    words = 'connection to server at "2001:db8::1", port 5432 failed: Network is unreachable'
    assert "IPv6 address needs IPv6" in translate(psycopg.OperationalError(words), "connecting").hint


# Tokens


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


def test_settings_that_exclude_each_other() -> None:
    raw: dict[str, Any] = {"pipe": {"name": "x"}, "destination": {"dsn": "chdb:///x"}}
    for source, message in (
        ({"authentication": "aws-iam", "password": {"env": "X"}}, "makes the password itself"),
        ({"authentication": "iam"}, "source.authentication"),
        ({"ssh": {"host": "h", "passphrase": {"env": "X"}}}, "a passphrase is for a key"),
        ({"ssh": {"host": "h", "via": {"hots": "h"}}}, "unknown key source.ssh.via.hots, did you mean host?"),
        ({"ssh": {"host": "h", "port": 0}}, "source.ssh.port"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse({**raw, "source": {"dsn": "host=h", **source}}, origin="x.toml")
        assert message in caught.value.message
