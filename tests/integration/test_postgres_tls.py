"""TLS to the source: every sslmode on every kind of connection, and what each refusal says."""

from __future__ import annotations

import contextlib
import ssl
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from tests.findings import named, one, pipe_of
from tests.fix_postgres import Database
from tests.fix_tls import SECRET, Tls

from penstock.config import Source
from penstock.errors import ConfigError, PenstockError, SourceRefusedError
from penstock.finding import Severity
from penstock.postgres import server_checks
from penstock.postgres.connection import Connector
from penstock.postgres.question import Question

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.postgres import PostgresServer

    from penstock.postgres.connection import Connection

MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def ways(server: PostgresServer, **parameters: Any) -> list[Callable[[], Connection]]:
    """Every kind of connection that a pipe makes: for queries, for the copy, for the stream."""
    given = {"user": "tls", "password": SECRET, **parameters}
    connector = Connector(Source(dsn=server.dsn("postgres", **given)), "penstock test")
    return [connector.connect, lambda: connector.connect(copying=True), lambda: connector.replication({})]


def encrypted(server: PostgresServer, **parameters: Any) -> set[bool]:
    """What the server says of each kind of connection."""
    seen = set()
    for connect in ways(server, **parameters):
        with contextlib.closing(connect()) as connection:
            pid = connection.info.backend_pid
            with server.connect() as admin:
                (found,) = admin.execute("select ssl from pg_stat_ssl where pid = %s", (pid,)).fetchone() or ("?",)
            assert found == connection.pgconn.ssl_in_use
            seen.add(found)
    return seen


def refused(server: PostgresServer, kind: type[PenstockError], message: str, hint: str, **parameters: Any) -> None:
    """Every kind of connection is refused, in the same words."""
    for connect in ways(server, **parameters):
        with pytest.raises(PenstockError) as caught:
            connect()
        assert message in caught.value.message
        assert hint in caught.value.hint, caught.value.message
        assert type(caught.value) is kind, caught.value.message
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_every_mode_with_a_server_that_takes_tls_only(tls: Tls) -> None:
    for mode in MODES[1:]:
        assert encrypted(tls.server, sslmode=mode, sslrootcert=tls.root) == {True}, mode
    refused(tls.server, SourceRefusedError, "pg_hba.conf", "without TLS: set sslmode=verify-full", sslmode="disable")


def test_every_mode_with_a_server_without_tls(tls: Tls) -> None:
    for mode in MODES[:3]:
        assert encrypted(tls.plain, sslmode=mode, sslrootcert=tls.root) == {False}, mode
    for mode in MODES[3:]:
        refused(tls.plain, SourceRefusedError, "does not support SSL", "ssl = on", sslmode=mode, sslrootcert=tls.root)


def test_allow_and_prefer_differ_where_both_will_do(tls: Tls) -> None:
    for user, mode, expected in (("plain", "allow", False), ("tls", "allow", True), ("tls", "prefer", True)):
        connector = Connector(Source(dsn=tls.server.dsn("postgres", user=user, password=SECRET, sslmode=mode)), "t")
        with contextlib.closing(connector.connect()) as connection:
            assert connection.pgconn.ssl_in_use is expected


def test_a_server_of_another_authority(tls: Tls) -> None:
    other = str(tls.folder / "foreign" / "root.crt")
    for mode in ("require", "verify-ca", "verify-full"):  # a root file makes verify-ca of require
        refused(
            tls.server, SourceRefusedError, "certificate verify failed", "no authority in sslrootcert has signed",
            sslmode=mode, sslrootcert=other,
        )  # fmt: skip


def test_a_server_under_another_name(tls: Tls) -> None:
    given = {"host": "db.example.com", "hostaddr": "127.0.0.1", "sslrootcert": tls.root}
    refused(
        tls.server, SourceRefusedError, 'does not match host name "db.example.com"', "host in the DSN",
        sslmode="verify-full", **given,
    )  # fmt: skip
    assert encrypted(tls.server, sslmode="verify-ca", **given) == {True}
    assert encrypted(tls.server, sslmode="verify-full", **{**given, "host": "localhost"}) == {True}


def test_an_expired_certificate_of_the_server(tls: Tls) -> None:
    for mode in ("verify-ca", "verify-full"):
        refused(
            tls.expired, SourceRefusedError, "certificate verify failed", "has expired",
            sslmode=mode, sslrootcert=tls.root,
        )  # fmt: skip
    assert encrypted(tls.expired, sslmode="require") == {True}


def test_root_files_that_are_none(tls: Tls) -> None:
    junk = tls.folder / "junk.pem"
    junk.write_text("junk")
    for root, message in (("/nonexistent/ca.pem", "does not exist"), (str(junk), "could not read root certificate")):
        refused(
            tls.server, ConfigError, message, "sslrootcert=/path/of/ca.pem", sslmode="verify-full", sslrootcert=root
        )
    refused(
        tls.server, ConfigError, 'weak sslmode "require"', "sslmode=verify-full",
        sslmode="require", sslrootcert="system",
    )  # fmt: skip


def test_the_systems_authorities(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", tls.root)
    assert encrypted(tls.server, sslrootcert="system") == {True}
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    refused(tls.server, SourceRefusedError, "certificate verify failed", "sslrootcert", sslrootcert="system")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    paths = ssl.get_default_verify_paths()._replace(cafile=tls.root, capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    assert encrypted(tls.server, sslrootcert="system") == {True}, "the system's authorities are not found"


@pytest.mark.parametrize("user", ["carded", "certified"])
def test_client_certificates(tls: Tls, user: str) -> None:
    assert encrypted(tls.server, user=user, **tls.mine("certified")) == {True}
    hint = "sslcert=… and sslkey=…"
    refused(tls.server, SourceRefusedError, "valid client certificate", hint, user=user, sslmode="require")
    refused(tls.server, SourceRefusedError, "unknown ca", hint, user=user, **tls.mine("foreign"))
    refused(tls.server, SourceRefusedError, "certificate expired", hint, user=user, **tls.mine("expired"))


def test_a_client_certificate_of_somebody_else(tls: Tls) -> None:
    message = 'certificate authentication failed for user "certified"'
    refused(tls.server, SourceRefusedError, message, "common name", user="certified", **tls.mine("somebody"))


def test_client_keys_that_do_not_fit(tls: Tls) -> None:
    refused(
        tls.server, ConfigError, "could not load private key", "its own key",
        user="certified", **tls.mine("certified", key="somebody"),
    )  # fmt: skip
    missing = {**tls.mine("certified"), "sslkey": "/nonexistent/key"}
    refused(tls.server, ConfigError, "not private key file", "sslkey", user="certified", **missing)
    key = tls.certificates["somebody"].key
    key.chmod(0o644)
    try:
        refused(tls.server, ConfigError, "access", "only the user", user="certified", **tls.mine("somebody"))
    finally:
        key.chmod(0o600)


def test_channel_binding(tls: Tls) -> None:
    given = {"sslmode": "require", "channel_binding": "require"}
    assert encrypted(tls.server, **given) == {True}
    for user in ("trusted", "hashed"):
        refused(tls.server, SourceRefusedError, "channel binding required", "scram-sha-256", **{**given, "user": user})
    refused(
        tls.server, SourceRefusedError, "channel binding required", "scram-sha-256",
        **{**given, **tls.mine("certified"), "user": "certified"},
    )  # fmt: skip
    refused(
        tls.plain, SourceRefusedError, "channel binding required, but SSL not in use", "needs TLS",
        channel_binding="require", sslmode="disable",
    )  # fmt: skip


def test_other_ways_not_to_agree(tls: Tls) -> None:
    refused(
        tls.server, SourceRefusedError, "password authentication failed", "name and password",
        sslmode="require", password=f"{SECRET} ",
    )  # fmt: skip
    refused(
        tls.server, SourceRefusedError, "authentication method requirement", "require_auth",
        sslmode="require", require_auth="md5",
    )  # fmt: skip
    refused(
        tls.server, ConfigError, "SSL protocol version", "ssl_min_protocol_version",
        sslmode="require", ssl_min_protocol_version="TLSv1.3", ssl_max_protocol_version="TLSv1.2",
    )  # fmt: skip
    tls.server.restart(ssl_min_protocol_version="TLSv1.3")
    try:
        refused(
            tls.server, SourceRefusedError, "protocol version", "ssl_max_protocol_version",
            sslmode="require", ssl_max_protocol_version="TLSv1.2",
        )  # fmt: skip
    finally:
        tls.server.restart(ssl_min_protocol_version="TLSv1.2")


def test_a_connection_that_others_can_read(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers are on loopback, which counts as far away here."""
    user = {"user": "tls", "password": SECRET}
    plain, fix = pipe_of(tls.plain.dsn(**user)), f" sslmode=verify-full sslrootcert={tls.root}"
    assert named(plain, "encryption") == []
    monkeypatch.setattr(server_checks, "LOOPBACK", ())
    found = one(plain, "encryption")
    assert (found.subject, found.severity) == ("127.0.0.1", Severity.WARNING)
    assert "sslmode=verify-full" in found.fix.advice
    assert named(pipe_of(tls.server.dsn(**user) + fix), "encryption") == []
    ((folder,),) = Database(tls.plain, "postgres").fetch("show unix_socket_directories")
    assert named(pipe_of(tls.plain.dsn(**user, host=folder)), "encryption") == []
    through = pipe_of(plain.source.dsn, ssh={"host": "jump"})
    with contextlib.closing(Connector(plain.source, "penstock test").connect()) as connection:
        assert list(server_checks.encryption(Question.of(connection, through, []))) == []
