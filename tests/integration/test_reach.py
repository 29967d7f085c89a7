"""Reaching the source: several hosts, IPv6, names that move, and the words for what fails."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from tests.fix_ssh import USER
from tests.servers.postgres import HBA, PostgresServer, free_port
from tests.ways import refused

from penstock.config import Source, Ssh, parse
from penstock.control.checks import check
from penstock.errors import ConfigError, SourceRefusedError, SourceUnavailableError
from penstock.postgres.connection import Connector, translate
from penstock.postgres.providers import advice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fix_proxy import Proxy
    from tests.fix_ssh import JumpServer

pytestmark = pytest.mark.pg("== 15")
AURORA = "shop.cluster-abc123.eu-west-1.rds.amazonaws.com"
AZURE = "shop.postgres.database.azure.com"


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


def test_of_several_hosts_the_primary_is_looked_for(postgres: PostgresServer, standby: PostgresServer) -> None:
    """Without being told: the first one may have come back as a standby."""
    ports = f"{standby.port},{postgres.port}"
    dsn = postgres.dsn(host="127.0.0.1,127.0.0.1", port=ports)
    for source, expected in (
        (Source(dsn=dsn), postgres),
        (Source(dsn=postgres.dsn(hostaddr="127.0.0.1,127.0.0.1", host="a,b", port=ports)), postgres),
        (Source(dsn=dsn, standby=True, publication="p"), standby),
        (Source(dsn=standby.dsn()), standby),  # one host: what it is is judged by whoever asked for it
    ):
        with contextlib.closing(Connector(source, "t").connect()) as connection:
            assert connection.info.port == expected.port
    with contextlib.closing(Connector(Source(dsn=dsn), "t").replication({})) as connection:
        assert connection.info.port == postgres.port


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


def test_a_server_that_ends_while_a_connection_is_made_is_tried_again() -> None:
    words = 'connection to server at "::1", port 5432 failed: server sent an error response during SSL exchange'
    assert isinstance(translate(psycopg.OperationalError(words), "connecting"), SourceUnavailableError)
