"""What can go wrong with PostgreSQL, as data: which error it becomes, and what to do. ``connection.translate`` reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import (
    ConfigError,
    PublicationError,
    SlotError,
    SlotHeldError,
    SourceRefusedError,
    SourceUnavailableError,
    ValueUnreadableError,
)
from penstock.language import N_, joined, phrase

if TYPE_CHECKING:
    from penstock.errors import PenstockError


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of trouble. ``states`` are SQLSTATEs or their beginnings; ``texts`` is for errors that carry none.

    Where ``about`` is given, an SQLSTATE says too little: the server's function or message must match too. The function helps
    where the server's messages are in another language. ``{firewall}`` in a hint is the one of this provider.
    """

    error: type[PenstockError]
    hint: str
    states: tuple[str, ...] = ()
    texts: str = ""
    about: str = ""
    more: str = ""  # said after the hint

    def says(self, firewall: str) -> str:
        """What to do; ``firewall`` says which one may be in the way."""
        return joined(phrase(self.hint, firewall=firewall), phrase(self.more))

    def fits(self, state: str, text: str, function: str) -> bool:
        """Whether this rule is about an error with this SQLSTATE, or without one and with this text."""
        if state:
            told_apart = re.search(self.about, f"{function} {text}", re.IGNORECASE) is not None
            return any(state.startswith(each) for each in self.states) and told_apart
        return bool(self.texts) and re.search(self.texts, text) is not None


COPY_AGAIN = N_(
    "What was changed since then is missing. Copy again: penstock drop PIPE.toml --tables, then penstock run."
)
"""Where a publication is gone that a pipe had."""
ANY_FIREWALL = N_(
    "A firewall between here and there swallows the packets, or the address is of a network that is not reached from here."
)

_WAY_OUT = N_(
    "Change or delete it in the source; then copy its table again: penstock resync. "
    "If it is the stream that stopped, copy all again: penstock drop PIPE.toml --tables, then penstock run."
)

RULES = (
    Rule(
        ValueUnreadableError,
        N_("A text has a character that UTF-8 does not have."),
        more=_WAY_OUT,
        states=("22P05", "22021"),
    ),
    Rule(
        ValueUnreadableError,
        N_(
            "A row is larger than PostgreSQL can send: 1 GB of text, of which a bytea takes two bytes for each of its own."
        ),
        more=_WAY_OUT,
        states=("54000", "XX000"),
        about="invalid memory alloc request size|string buffer|out of memory",
    ),
    Rule(
        SourceUnavailableError,
        N_("The connection was cut; Penstock tries again."),
        texts=r"SSL SYSCALL|SSL connection has been closed|unexpected eof|error response during SSL exchange",
    ),
    Rule(
        SlotHeldError,
        N_("Wait for that process to end, or end it: select pg_terminate_backend(PID);"),
        states=("55006",),
        about="slot",
    ),
    Rule(
        PublicationError,
        COPY_AGAIN,
        states=("42704",),
        about="publication",
    ),
    Rule(
        SlotError,
        N_(
            "The slot is gone, and the changes with it. Copy again: penstock resync PIPE.toml --all, then penstock run."
        ),
        states=("42704",),
        about="slot",
    ),
    Rule(
        SlotError,
        N_(
            "Copy again: penstock resync PIPE.toml --all, then penstock run; and let max_slot_wal_keep_size hold more WAL."
        ),
        states=("55000", "58P01"),
        about="invalidated|no longer get changes|WAL segment|XLogRead",
    ),
    Rule(
        SourceUnavailableError,
        N_(
            "Let the DSN lead to the primary (the writer endpoint). Right after a failover it may need a moment; Penstock tries again."
        ),
        states=("55000",),
        about="recovery is in progress",
    ),
    Rule(
        SourceRefusedError,
        N_("Set wal_level = logical on the primary, restart it, and let the DSN name the primary."),
        states=("55000", "0A000"),
        about="wal_level|recovery|CheckLogicalDecodingRequirements",
    ),
    Rule(
        SourceRefusedError,
        N_("Row-level security would hide rows: ALTER ROLE … BYPASSRLS, or leave the table out."),
        states=("42501",),
        about="row-level security|check_enable_rls",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "Grant it to the role of source.dsn; penstock check lists the statements (GRANT SELECT ON TABLE …, GRANT USAGE ON SCHEMA …)."
        ),
        states=("42501",),
        about=r"for (table|view|relation|partitioned table|schema|column)",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "Let the role of source.dsn own the tables and GRANT CREATE ON DATABASE … to it; "
            "or create the publication as their owner and name it in source.publication."
        ),
        states=("42501",),
        about="owner|for database",
    ),
    Rule(
        SourceRefusedError,
        N_("Let the role replicate: ALTER ROLE … WITH REPLICATION; (on RDS and Aurora: GRANT rds_replication TO …;)"),
        states=("42501",),
        texts=r"replication role|start WAL sender",
    ),
    # TLS, first what libpq says about files of ours, then what it says about the server, then what the server says.
    Rule(
        ConfigError,
        N_(
            "Name the file of the authority that signed the server's certificate: sslrootcert=/path/of/ca.pem; "
            "or sslrootcert=system with sslmode=verify-full."
        ),
        texts=r"root certificate|weak sslmode",
    ),
    Rule(
        ConfigError,
        N_(
            "Mend sslcert and sslkey in the DSN: a certificate and its own key, which only the user who runs Penstock may read."
        ),
        texts=r"private key|could not (open|read|load) certificate|certificate present",
    ),
    Rule(
        ConfigError,
        N_("Let ssl_min_protocol_version and ssl_max_protocol_version in the DSN have a version in common."),
        texts=r"SSL protocol version",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "It has expired, or no authority in sslrootcert has signed it. "
            "To see it: openssl s_client -starttls postgres -showcerts -connect HOST:PORT"
        ),
        texts=r"certificate verify failed",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "Let host in the DSN be a name of the certificate; hostaddr may say where that is. "
            "Or trust the authority alone: sslmode=verify-ca."
        ),
        texts=r"does not match host name|host name must be specified",
    ),
    Rule(
        SourceRefusedError,
        N_("Turn TLS on at the server (ssl = on); or set sslmode=prefer, and anybody in between can read along."),
        texts=r"does not support SSL",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "channel_binding=require needs TLS (sslmode=require) and a password that the server checks by scram-sha-256. "
            "Mend the server's pg_hba.conf, or take it out of the DSN."
        ),
        texts=r"[Cc]hannel binding",
    ),
    Rule(
        SourceRefusedError,
        N_("Mend require_auth in the DSN, or the authentication method in the server's pg_hba.conf."),
        texts=r"authentication method requirement",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "Give a certificate that the server accepts for this role: sslcert=… and sslkey=… in the DSN, signed by an authority of its "
            "ssl_ca_file."
        ),
        texts=r"alert (unknown ca|bad certificate|unsupported certificate|certificate|decrypt error)",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "Give a certificate that the server accepts for this role: sslcert=… and sslkey=… in the DSN; its common name must be the "
            "role's, or pg_ident.conf must map it."
        ),
        texts=r"valid client certificate|certificate authentication failed",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "The server's TLS versions and the DSN's differ: mend ssl_min_protocol_version and ssl_max_protocol_version."
        ),
        texts=r"protocol version|unsupported protocol|no protocols available",
    ),
    Rule(
        SourceRefusedError,
        N_("pg_hba.conf does not let this user in without TLS: set sslmode=verify-full, or require, in the DSN."),
        texts=r"pg_hba\.conf.*(no encryption|SSL off)",
    ),
    Rule(
        ConfigError,
        N_("Mend the DSN in [source]."),
        texts=r"invalid \w+ value|definition of service|service file|invalid port|invalid connection option",
    ),
    Rule(
        SourceUnavailableError,
        N_("The server is starting, stopping or recovering; Penstock tries again."),
        states=("57P01", "57P02", "57P03", "57P05"),
        texts=r"database system is|terminating connection|canceling authentication due to timeout|not yet accepting connections",
    ),
    Rule(
        SourceUnavailableError,
        N_("Close sessions that are not needed, or raise max_connections or max_wal_senders."),
        states=("53300",),
        texts=r"too many (clients|connections)|remaining connection slots|max_wal_senders",
    ),
    Rule(
        SourceUnavailableError,
        N_("Connect to the primary (the writer endpoint). Right after a failover it may need a moment."),
        states=("25006",),
        texts=r"read-only|not in hot standby mode|is in hot standby",
    ),
    Rule(
        SourceRefusedError,
        N_("Check the user's name and password in [source]."),
        states=("28P01",),
        texts=r"password authentication failed|PAM authentication failed|no password supplied|authentication failed|SCRAM|SASL",
    ),
    Rule(
        SourceRefusedError,
        N_(
            "Add a line for Penstock's address, database and user to pg_hba.conf, or the rule that the provider has for it."
        ),
        texts=r"pg_hba\.conf",
    ),
    Rule(
        SourceRefusedError,
        N_("Check what the DSN says of TLS (sslmode and what begins with ssl) against the server's settings."),
        texts=r"SSL|certificate|TLS",
    ),
    Rule(
        SourceRefusedError,
        N_("This looks like a pooler: give the DSN of PostgreSQL itself."),
        texts=r"unsupported startup parameter|unsupported startup packet|pgbouncer",
    ),
    Rule(
        SourceRefusedError,
        N_("Check the user's and the database's name in the DSN, and the role's LOGIN and CONNECT privileges."),
        states=("28000", "3D000", "57P04"),
        texts=r"does not exist|not permitted|permission denied|not currently accepting connections",
    ),
    Rule(
        SourceRefusedError,
        N_("Drop a slot that is not needed, or raise max_replication_slots and restart the server."),
        states=("53400",),
        texts=r"all replication slots are in use",
    ),
    Rule(
        SourceUnavailableError,
        N_("Another session keeps the table locked (ALTER, VACUUM FULL and the like); Penstock tries again."),
        states=("55P03",),
    ),
    # The way there
    Rule(
        SourceUnavailableError,
        N_(
            "Mend the host in source.dsn, or this machine's DNS; names of a private network may be known inside of it only. "
            "Penstock tries again."
        ),
        texts=r"resolve host|translate host name|Name or service not known|name resolution",
    ),
    Rule(
        SourceUnavailableError,
        N_(
            "Nothing listens there: check host and port, whether the server runs, and its listen_addresses; Penstock tries again."
        ),
        texts=r"Connection refused",
    ),
    Rule(
        SourceUnavailableError,
        N_("{firewall} Penstock tries again."),
        texts=r"connection timeout expired|failed: Connection timed out",
    ),
    Rule(
        SourceUnavailableError,
        N_(
            "This machine has no way to that address: an IPv6 address needs IPv6 here, a private one a peering, a VPN or [source.ssh]. "
            "Penstock tries again."
        ),
        texts=r"Network is unreachable|No route to host|Cannot assign requested address",
    ),
    Rule(
        SourceUnavailableError,
        N_("Check host and port, the firewall or security group, and whether the server runs; Penstock tries again."),
        states=("08", "53", "58030", "XX", "40", "57014"),
    ),
)
"""First fitting row wins; an error without SQLSTATE that fits none is a connection that could not be made, or was cut."""
