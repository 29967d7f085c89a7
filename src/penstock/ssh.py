"""One SSH connection to a jump server: which keys are shown to it, which key it must show, and what each refusal means.

~/.ssh/config plays no part: what a pipe needs stands in its definition, so that it runs the same for every user. A server whose
key is not known beforehand is refused, always. Runs in the event loop of ``penstock.tunnel``, the only module that uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from penstock.errors import ConfigError
from penstock.language import joined, phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.config import Ssh

CONNECT_SECONDS = 10.0
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 4, 2  # a silent link is given up after (2 + 1) × 4 seconds
FAST_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"  # done by the processor itself
KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
USUAL_PORT = 22
USUAL_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk", "id_ed448")


class TunnelError(Exception):
    """The tunnel does not lead to the database: what happened, and what to do. ``lasting``: trying again does not help."""

    def __init__(self, message: str, hint: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.lasting = lasting


async def connect(ssh: Ssh, through: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
    """Connect and log in, ``through`` another jump server or directly. Raises TunnelError and ConfigError."""
    known = _known_hosts(ssh)
    expected, authorities = asyncssh.match_known_hosts(
        known, ssh.host, "", ssh.port if ssh.port != USUAL_PORT else None
    )[:2]
    client = _Client()
    try:
        credentials = await asyncio.to_thread(_credentials, ssh)
        return await asyncssh.connect(
            ssh.host,
            ssh.port,
            tunnel=through,
            username=ssh.user or getpass.getuser(),
            known_hosts=known,
            server_host_key_algs=_kinds_of_keys(expected, authorities),
            client_factory=lambda: client,
            config=None,
            gss_auth=False,
            gss_kex=False,
            encryption_algs=FAST_CIPHERS,
            keepalive_interval=KEEPALIVE_SECONDS,
            keepalive_count_max=KEEPALIVE_COUNT,
            connect_timeout=CONNECT_SECONDS,
            login_timeout=CONNECT_SECONDS,
            **credentials,
        )
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise await _translated(error, ssh, expected, client) from None


def where(ssh: Ssh) -> str:
    """The jump server, for messages."""
    return f"{ssh.host}:{ssh.port}" + (f" (via {where(ssh.via)})" if ssh.via else "")


class _Client(asyncssh.SSHClient):
    """Remembers the key that the server showed, when it is none of the known ones."""

    shown: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key
        return False


# What we show


def _credentials(ssh: Ssh) -> dict[str, Any]:
    """Arguments of asyncssh: the key's pair, or the password; or neither, then it asks the agent and the usual files."""
    password = ssh.password.read() if ssh.password else None
    if ssh.key:
        return {"client_keys": _load(ssh), "agent_path": None, "password": password}
    if password is not None:
        return {"client_keys": None, "password": password}
    if not os.environ.get("SSH_AUTH_SOCK") and not _usual_keys():
        raise ConfigError(
            phrase(
                "ssh to {server}: there is no key: no agent runs (SSH_AUTH_SOCK is not set), and ~/.ssh has none of the usual files",
                server=where(ssh),
            ),
            hint=phrase(
                'Name the private key: key = "/path/of/id_ed25519"; or start an agent: eval $(ssh-agent); ssh-add'
            ),
        )
    return {}


def _load(ssh: Ssh) -> Sequence[asyncssh.SSHKeyPair]:
    path = Path(ssh.key).expanduser()
    passphrase = ssh.passphrase.read() if ssh.passphrase else None
    try:
        return asyncssh.load_keypairs([str(path)], passphrase)
    except OSError as error:
        raise ConfigError(
            phrase("ssh.key: {path} cannot be read: {reason}", path=path, reason=error.strerror),
            hint=phrase("Check the path and its permissions."),
        ) from None
    except asyncssh.KeyEncryptionError:
        raise ConfigError(
            phrase("ssh.key: the passphrase does not open {path}", path=path),
            hint=phrase("Mend what ssh.passphrase reads; try: ssh-keygen -y -f KEY"),
        ) from None
    except ValueError as error:  # also KeyImportError
        if "assphrase must be specified" in str(error):
            raise ConfigError(
                phrase("ssh.key: {path} is encrypted, and there is no passphrase", path=path),
                hint=phrase(
                    'Write passphrase = {{ env = "…" }} or {{ file = "…" }}; or leave key out and give it to the agent: ssh-add KEY'
                ),
            ) from None
        raise ConfigError(
            phrase("ssh.key: {path} holds no private key that can be read", path=path),
            hint=phrase(
                "Name the private key, not the .pub beside it; PuTTY's is converted by: puttygen KEY.ppk -O private-openssh"
            ),
        ) from None


def _usual_keys() -> list[Path]:
    return [each for each in (Path("~/.ssh").expanduser() / name for name in USUAL_KEYS) if each.exists()]


# What the server must show


def _known_hosts(ssh: Ssh) -> Any:
    """What asyncssh takes as ``known_hosts``; never None, which would trust everybody."""
    if ssh.known_host_key:
        return [_public_key(line) for line in ssh.known_host_key.splitlines() if line.strip()], [], []
    files = [each for each in (Path(name).expanduser() for name in KNOWN_HOSTS) if os.access(each, os.R_OK)]
    try:
        return asyncssh.read_known_hosts([str(each) for each in files])
    except ValueError as error:
        raise ConfigError(
            phrase("{files} cannot be read: {reason}", files=" / ".join(map(str, files)), reason=error),
            hint=phrase("Mend the line, or set ssh.known_host_key."),
        ) from None


def _public_key(line: str) -> asyncssh.SSHKey:
    """``ssh-ed25519 AAAA…``, with or without the host's name before it."""
    words = line.split()
    for start in (0, 1):
        with contextlib.suppress(asyncssh.KeyImportError):
            return asyncssh.import_public_key(" ".join(words[start:]))
    raise ConfigError(
        phrase("ssh.known_host_key is not a public key"),
        hint=phrase('Write it as ssh-keyscan HOST prints it: "ssh-ed25519 AAAA…".'),
    )


def _kinds_of_keys(expected: Sequence[asyncssh.SSHKey], authorities: Sequence[asyncssh.SSHKey]) -> list[str]:
    """The known kinds first, so that a server with several keys shows a known one; then all, so that it shows one in any case."""
    certified = get_default_certificate_algs() if authorities else []
    known = [each for key in expected for each in key.sig_algorithms]
    return [each.decode() for each in dict.fromkeys([*certified, *known, *get_default_public_key_algs()])]


# What went wrong


async def _translated(error: Exception, ssh: Ssh, expected: Sequence[asyncssh.SSHKey], client: _Client) -> TunnelError:
    """What an error of asyncssh or of the operating system means."""
    match error:
        case OSError():  # TimeoutError is one
            return _unreachable(error, ssh)
        case asyncssh.HostKeyNotVerifiable():
            return _host_key_trouble(error.reason, ssh, expected, client.shown)
        case asyncssh.PermissionDenied():
            shown, hint = await _shown_keys(ssh)
            user = ssh.user or getpass.getuser()
            refused = phrase(
                "the jump server {server} does not let {user} in, who showed {shown}",
                server=where(ssh),
                user=user,
                shown=shown,
            )
            return TunnelError(refused, hint, lasting=True)
        case asyncssh.ChannelOpenError():
            cut = phrase(
                "the jump server {server} cannot be reached from the one before it: {reason}",
                server=where(ssh),
                reason=error.reason,
            )
            return TunnelError(cut, _firewall(ssh))
        case _:
            ended = phrase(
                "the jump server {server} ended the conversation: {reason}",
                server=where(ssh),
                reason=str(error) or type(error).__name__,
            )
            return TunnelError(ended, joined(phrase("See whether it is an SSH server."), _firewall(ssh)))


def no_way_on(error: Exception, ssh: Ssh, target: tuple[str, int]) -> TunnelError:
    """What it means that the jump server does not connect to ``target``."""
    names = {"server": where(ssh), "name": f"{target[0]}:{target[1]}"}
    match error:
        case TimeoutError():
            return TunnelError(
                phrase("the jump server {server} gets no answer from {name}", **names),
                phrase("Let the firewall or security group of the database admit the jump server."),
            )
        case asyncssh.ChannelOpenError() if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            return TunnelError(
                phrase("the jump server {server} does not allow a tunnel to {name}", **names),
                phrase("Set AllowTcpForwarding yes, and PermitOpen where it is used, in its sshd_config."),
                lasting=True,
            )
        case asyncssh.ChannelOpenError():
            return TunnelError(
                phrase("the jump server {server} cannot reach {name}: {reason}", **names, reason=error.reason),
                phrase(
                    "Check host and port in the DSN, as the jump server knows them, and that the database admits the jump server."
                ),
            )
        case _:
            lost = phrase("the jump server {server} was lost: {reason}", server=where(ssh), reason=error)
            return TunnelError(lost, phrase("Penstock tries again."))


def _unreachable(error: OSError, ssh: Ssh) -> TunnelError:
    server = where(ssh)
    match error:
        case socket.gaierror():
            unknown = phrase("the name of the jump server {server} does not resolve", server=server)
            return TunnelError(unknown, phrase("Mend ssh.host, or this machine's DNS."))
        case ConnectionRefusedError():
            happened = phrase("the jump server {server} refuses the connection: nothing listens there", server=server)
        case TimeoutError():
            happened = phrase(
                "the jump server {server} gives no answer within {seconds} s",
                server=server,
                seconds=round(CONNECT_SECONDS),
            )
        case _:
            reason = error.strerror or error
            happened = phrase("the jump server {server} cannot be reached: {reason}", server=server, reason=reason)
    return TunnelError(happened, _firewall(ssh))


def _firewall(ssh: Ssh) -> str:
    return phrase(
        "Check ssh.host and ssh.port, and that its firewall or security group lets this machine in on port {port}.",
        port=ssh.port,
    )


def _host_key_trouble(
    said: str, ssh: Ssh, expected: Sequence[asyncssh.SSHKey], shown: asyncssh.SSHKey | None
) -> TunnelError:
    server = where(ssh)
    source = "ssh.known_host_key" if ssh.known_host_key else "known_hosts"
    if shown is None:  # revoked, or a certificate that does not hold
        forbidden = phrase(
            "the jump server {server} shows a key that {source} forbids: {reason}",
            server=server,
            source=source,
            reason=said,
        )
        return TunnelError(forbidden, phrase("Ask its owner."), lasting=True)
    line = " ".join(shown.export_public_key().decode().split()[:2])
    what = f"{line} ({shown.get_fingerprint()})"
    if expected:
        fingerprints = ", ".join(each.get_fingerprint() for each in expected)
        return TunnelError(
            phrase(
                "the jump server {server} shows another host key than {source} has ({known}): {shown}",
                server=server,
                source=source,
                known=fingerprints,
                shown=what,
            ),
            phrase(
                "Somebody may be in between. If its owner says that the key was changed, put the new one into {source}.",
                source=source,
            ),
            lasting=True,
        )
    return TunnelError(
        phrase("the host key of the jump server {server} is not known; it shows {shown}", server=server, shown=what),
        phrase('Compare the fingerprint with what its owner says; then write known_host_key = "{line}".', line=line),
        lasting=True,
    )


async def _shown_keys(ssh: Ssh) -> tuple[str, str]:
    """With what the login was tried, and what to do when that was not enough."""
    add = phrase("Add the public key to ~/.ssh/authorized_keys of that user on the jump server, and see its log.")
    if ssh.key and ssh.password:
        return phrase("the key {key} and a password", key=ssh.key), add
    if ssh.key:
        see = phrase("To see the public key: {command}", command=f"ssh-keygen -y -f {ssh.key}")
        return phrase("the key {key}", key=ssh.key), joined(add, see)
    if ssh.password:
        return phrase("a password"), phrase(
            "Check ssh.user and ssh.password, and that the server allows passwords (PasswordAuthentication)."
        )
    return phrase("{keys} and {count} of the usual files", keys=await _agents_keys(), count=len(_usual_keys())), joined(
        add, phrase("Or name another key in ssh.key.")
    )


async def _agents_keys() -> str:
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        return phrase("no agent's keys (SSH_AUTH_SOCK is not set)")
    try:
        async with asyncssh.connect_agent(path) as agent:
            return phrase("the {count} keys of the agent", count=len(await agent.get_keys()))
    except (OSError, ValueError):
        return phrase("no agent's keys (nobody answers at SSH_AUTH_SOCK)")
