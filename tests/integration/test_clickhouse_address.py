"""Where the destination is, and what is said when it is not there or says no."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from tests.fix_clickhouse import destination_of
from tests.fix_ssh import USER

from penstock.clickhouse import address
from penstock.clickhouse.client import Client
from penstock.config import Destination, Secret, Ssh
from penstock.errors import ConfigError, DestinationRefusedError, DestinationUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fix_ssh import JumpServer
    from tests.servers.clickhouse import ClickHouseServer


def opened(destination: Destination, tmp_path: Path) -> closing[Client]:
    return closing(Client.open(destination, scratch=tmp_path / "scratch"))


@pytest.mark.parametrize(
    ("dsn", "host", "port", "user", "secure"),
    [
        ("clickhouse://db.example.com", "db.example.com", 8123, "default", False),
        ("clickhouse://me@db.example.com:9999", "db.example.com", 9999, "me", False),
        ("clickhouse://a%40b@db.example.com/?secure=true", "db.example.com", 8443, "a@b", True),
        ("clickhouses://db.example.com", "db.example.com", 8443, "default", True),
        ("https://me@db.example.com:443/", "db.example.com", 443, "me", True),
        ("http://[::1]:8124", "::1", 8124, "default", False),
    ],
)
def test_dsns(dsn: str, host: str, port: int, user: str, secure: bool) -> None:
    where = address.read(Destination(dsn=dsn))
    assert (where.host, where.port, where.user, where.secure) == (host, port, user, secure)


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://db.example.com", "neither a ClickHouse server nor a chDB folder"),
        ("clickhouse://", "neither"),
        ("chdb://", "folder alone"),
        ("chdb://host/path", "folder alone"),
        ("clickhouse://me:hunter2@db.example.com", "holds a password"),
        ("clickhouse://db.example.com/shop", "names a database"),
        ("clickhouse://db.example.com?sceure=true", "unknown option sceure"),
        ("clickhouse://db.example.com?secure=maybe", "secure is neither true nor false"),
        ("clickhouse://db.example.com?connect_timeout=0", "connect_timeout is not"),
        ("clickhouse://db.example.com:99999", "port"),
    ],
)
def test_wrong_dsns(dsn: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Client.open(Destination(dsn=dsn), scratch=tmp_path)
    assert caught.value.hint
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_the_password_is_not_shown() -> None:
    where = address.Address(host="db.example.com", port=8123, password="hunter2")
    assert "hunter2" not in repr(where) + where.name


def test_a_wrong_password(clickhouse_server: ClickHouseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG", "hunter2")
    destination = Destination(dsn=clickhouse_server.dsn("penstock"), password=Secret(env="WRONG"))
    with (
        opened(destination, tmp_path) as client,
        pytest.raises(DestinationRefusedError, match="the user or the password is wrong") as caught,
    ):
        client.rows("select 1")
    assert "hunter2" not in repr(caught.value) + caught.value.hint


def test_a_password_that_is_not_there(clickhouse_server: ClickHouseServer, tmp_path: Path) -> None:
    destination = Destination(dsn=clickhouse_server.dsn("penstock"), password=Secret(env="NOT_SET_ANYWHERE"))
    with pytest.raises(ConfigError, match="NOT_SET_ANYWHERE is not set"):
        Client.open(destination, scratch=tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with (
            opened(Destination(dsn=f"clickhouse://127.0.0.1:{port}"), tmp_path) as client,
            pytest.raises(DestinationUnavailableError, match=rf"ClickHouse at 127\.0\.0\.1:{port} cannot be reached"),
        ):
            client.rows("select 1")


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    with (
        opened(Destination(dsn="clickhouse://no-such-host.invalid"), tmp_path) as client,
        pytest.raises(DestinationUnavailableError, match="its name cannot be resolved"),
    ):
        client.rows("select 1")


def test_the_native_port(clickhouse_server: ClickHouseServer, tmp_path: Path) -> None:
    destination = Destination(dsn=f"clickhouse://127.0.0.1:{clickhouse_server.tcp_port}")
    with opened(destination, tmp_path) as client, pytest.raises(DestinationRefusedError, match="native protocol"):
        client.rows("select 1")


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """A port that gives every connection the same reply, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (b"", DestinationUnavailableError, "broke the connection"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", DestinationUnavailableError, "HTTP status 503"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", DestinationRefusedError, "HTTP status 404"),
    ],
)
def test_something_else_answers(reply: bytes, kind: type[Exception], words: str, tmp_path: Path) -> None:
    with (
        answering(reply) as port,
        opened(Destination(dsn=f"clickhouse://127.0.0.1:{port}"), tmp_path) as client,
        pytest.raises(kind, match=words),
    ):
        client.rows("select 1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for localhost, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "key", "-out", folder / "cert"]
    subprocess.run([*command, *names], check=True, capture_output=True)
    (folder / "both").write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return folder / "both"


def pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)  # wakes the thread of the other direction
        each.close()


def serve_tls(listening: socket.socket, context: ssl.SSLContext, port: int, threads: list[threading.Thread]) -> None:
    """Accept until the socket is closed; a client that does not trust us breaks off."""
    with suppress(OSError):
        while True:
            plain, _ = listening.accept()
            with suppress(OSError):
                outer = context.wrap_socket(plain, server_side=True)
                inner = socket.create_connection(("127.0.0.1", port))
                for ends in ((outer, inner), (inner, outer)):
                    threads.append(threading.Thread(target=pass_on, args=ends))
                    threads[-1].start()
            plain.close()


@contextmanager
def tls_in_front(server: ClickHouseServer, certificate: Path) -> Iterator[int]:
    """A port that speaks TLS and passes everything on."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threads.append(threading.Thread(target=serve_tls, args=(listening, context, server.http_port, threads)))
        threads[0].start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)


def test_tls(clickhouse_server: ClickHouseServer, certificate: Path, tmp_path: Path) -> None:
    with tls_in_front(clickhouse_server, certificate) as port:
        dsn = f"clickhouse://localhost:{port}?secure=true"
        with opened(Destination(dsn=f"{dsn}&ca_cert={certificate}"), tmp_path) as client:
            assert client.rows("select 1") == [(1,)]
        with (
            opened(Destination(dsn=dsn), tmp_path) as client,
            pytest.raises(DestinationRefusedError, match="certificate that cannot be verified"),
        ):
            client.rows("select 1")
        with opened(Destination(dsn=f"{dsn}&verify=false"), tmp_path) as client:
            assert client.rows("select 1") == [(1,)]


def test_tls_through_a_tunnel(
    clickhouse_server: ClickHouseServer, certificate: Path, jump: JumpServer, ssh_key: Path, tmp_path: Path
) -> None:
    """The server's own name is checked, not the tunnel's address."""
    ssh = Ssh(host="127.0.0.1", port=jump.port, user=USER, key=str(ssh_key), known_host_key=jump.line)
    jump.names["ch.internal"] = "127.0.0.1"
    with tls_in_front(clickhouse_server, certificate) as port:
        given = f"{port}?secure=true&ca_cert={certificate}"
        with opened(Destination(dsn=f"clickhouse://localhost:{given}", ssh=ssh), tmp_path) as client:
            assert client.rows("select 1") == [(1,)]
        with (
            opened(Destination(dsn=f"clickhouse://ch.internal:{given}", ssh=ssh), tmp_path) as client,
            pytest.raises(DestinationRefusedError, match="certificate of another host"),
        ):
            client.rows("select 1")


def test_tls_to_a_port_without_it(clickhouse_server: ClickHouseServer, tmp_path: Path) -> None:
    destination = destination_of(clickhouse_server, secure="true")
    with opened(destination, tmp_path) as client, pytest.raises(DestinationRefusedError, match="does not speak TLS"):
        client.rows("select 1")
