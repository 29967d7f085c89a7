"""The tables of a definition. Every default is written once, here."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import ByteSize, Field, field_validator, model_validator

from penstock.config.values import Flag, ProviderName, Seconds, Secret, Section, Size, Whole

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}")

Patterns = tuple[str, ...]


class Ssh(Section):
    """A jump server, through which a tunnel leads."""

    host: str = Field(description="The jump server's name or address.")
    port: Whole = Field(default=22, ge=1, le=65535, description="Its port.")
    user: str = Field(default="", description="The user there. Empty: the user who runs Penstock.")
    key: str = Field(
        default="",
        description="The private key's file; a certificate may lie beside it. "
        "Empty: the agent (`SSH_AUTH_SOCK`) and ssh's usual files, where there is no password either.",
    )
    passphrase: Secret | None = Field(
        default=None, description="Where the passphrase of an encrypted key is read from."
    )
    password: Secret | None = Field(
        default=None, description="Where the password is read from, for a login by password."
    )
    known_host_key: str = Field(
        default="",
        description="The jump server's public key, as `ssh-keyscan` prints it; several on lines of their own. "
        "Empty: ssh's known_hosts. A server that shows another key is refused.",
    )
    via: Ssh | None = Field(
        default=None,
        description="Another jump server, through which this one is reached; it has the same keys as this table.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Ssh:
        if self.passphrase and not self.key:
            raise ValueError("a passphrase is for a key: name its file in key, or leave both to the agent")
        return self


class Source(Section):
    """The PostgreSQL side."""

    dsn: str = Field(
        description="libpq's connection string: a URI or `key=value` pairs, every `sslmode`; "
        "TLS with `sslrootcert` (`system`: the authorities of this machine), client certificates with `sslcert` and `sslkey`."
    )
    password: Secret | None = Field(default=None, description="Where the password is read from, when it is needed.")
    authentication: Literal["password", "aws-iam", "azure-entra"] = Field(
        default="password",
        description="`password`: what the DSN has, a password or a certificate. `aws-iam`: a token of RDS's or Aurora's IAM. "
        "`azure-entra`: a token of Microsoft Entra's. A token is made for each connection, and needs `sslmode=require` or stronger.",
    )
    region: str = Field(
        default="",
        description="The AWS region that tokens are made for, and setup works in. "
        "Empty: the one in the host's name, or AWS's own settings.",
    )
    provider: ProviderName = Field(
        default="auto", description="Who runs the source; `auto` finds out by the server, or the host."
    )
    publication: str = Field(
        default="", description="A publication of yours. Empty: Penstock makes, maintains and drops it."
    )
    slot: str = Field(
        default="",
        pattern=r"^[a-z0-9_]{0,63}$",
        description="A replication slot of yours: lower-case letters, digits and underscores. Empty: Penstock makes and drops it.",
    )
    standby: Flag = Field(
        default=False,
        description="The DSN leads to a standby, on purpose (16 and later); it needs `publication`, which only the primary can make.",
    )
    ssh: Ssh | None = Field(default=None, description="A jump server in front of the source.")

    @model_validator(mode="after")
    def _one_way_in(self) -> Source:
        if self.authentication != "password" and self.password:
            raise ValueError(f'authentication = "{self.authentication}" makes the password itself: leave password out')
        return self


class Destination(Section):
    """The ClickHouse side."""

    dsn: str = Field(
        description="`chdb:///folder` (embedded), or `clickhouse://user@host:8123`; `?secure=true` for TLS."
    )
    password: Secret | None = Field(default=None, description="Where the password is read from, when it is needed.")
    database: str = Field(
        default="", description="The database to write to; made when missing. Empty: the pipe's name."
    )
    metadata_prefix: str = Field(
        default="_",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description='What the names of the metadata columns begin with; `"_peerdb_"` makes tables look like ClickPipes\' own.',
    )
    ssh: Ssh | None = Field(default=None, description="A jump server in front of a ClickHouse server.")
    views: Flag = Field(
        default=True, description="Keep views `<target>_current`: the rows as they are now, without metadata columns."
    )


class TableOptions(Section):
    """What is different for one table."""

    target: str = Field(default="", description="Its name in ClickHouse. Empty: by the template of `[tables]`.")
    exclude_columns: tuple[str, ...] = Field(default=(), description="Columns that are not replicated.")
    order_by: tuple[str, ...] = Field(
        default=(),
        description="Columns to sort by, before the source's key, which always follows. Any column may be named. "
        "Those that PostgreSQL does not tell of an old row cost a look-up for each change, and changes wait for the table's copy. "
        "Empty: the key alone.",
    )
    shape: Literal["current", "history", "null"] = Field(
        default="current",
        description="`current`: the rows as they are now. `history`: every change a row. "
        "`null`: nothing is stored, materialized views are fed.",
    )
    partition_by: str = Field(
        default="", description="ClickHouse's PARTITION BY expression, of any columns. Empty: none."
    )
    types: dict[str, str] = Field(
        default={}, description="ClickHouse types for columns, instead of those of the type map."
    )


class Tables(Section):
    """Which tables, and how."""

    include: Patterns = Field(
        default=("public.*",), description="Patterns of `schema.table`, as in a shell; case counts."
    )
    exclude: Patterns = Field(default=(), description="Patterns of tables that are left out.")
    target: str = Field(default="{table}", description="The names in ClickHouse, made of `{schema}` and `{table}`.")
    options: dict[str, TableOptions] = Field(
        default={}, description="What is different for single tables, by `schema.table`."
    )

    @field_validator("target")
    @classmethod
    def _template(cls, value: str) -> str:
        if "{table}" not in value or re.search(r"\{(?!table\}|schema\})", value):
            raise ValueError('a template of {table} and {schema}, such as "{schema}_{table}"')
        return value

    def matches(self, full_name: str) -> bool:
        """Whether ``schema.table`` belongs to the pipe. Patterns are shell-like; case counts; a name matches itself."""
        return _matches_one(full_name, self.include) and not _matches_one(full_name, self.exclude)

    def options_for(self, full_name: str) -> TableOptions:
        """The options of ``schema.table``."""
        return self.options.get(full_name, _NO_OPTIONS)

    def target_of(self, schema: str, table: str) -> str:
        """The name of the table in the destination."""
        names = {"{schema}": schema, "{table}": table}
        made = re.sub(r"\{schema\}|\{table\}", lambda found: names[found[0]], self.target)
        return self.options_for(f"{schema}.{table}").target or made


def _matches_one(name: str, patterns: Patterns) -> bool:
    return any(name == each or fnmatchcase(name, each) for each in patterns)


_NO_OPTIONS = TableOptions()


class Settings(Section):
    """How the pipe works."""

    flush_interval: Seconds = Field(
        default=1.0,
        ge=0.01,
        le=3600,
        description="Under load each table is written at most this often; a change that follows a quiet moment at once.",
    )
    max_batch_rows: Whole = Field(
        default=100_000, ge=1, le=1_000_000, description="A batch of so many rows is written at once."
    )
    max_batch_bytes: Size = Field(
        default=ByteSize(64 << 20),
        ge=64 << 10,
        le=1 << 30,
        description="A batch of so many bytes of PostgreSQL's text is written at once.",
    )
    copy_tables: Whole = Field(default=2, ge=1, le=64, description="Tables copied at a time.")
    copy_workers: Whole = Field(default=4, ge=1, le=64, description="Connections that copy one table.")
    copy_part_rows: Whole = Field(default=250_000, ge=1, description="About so many rows are copied as one part.")
    decoding_work_mem: str = Field(
        default="256MB",
        pattern=r"^\d+\s*(kB|MB|GB)$",
        description="`logical_decoding_work_mem` of our replication session, and of no other (PostgreSQL 13 and later).",
    )
    nullable: Flag = Field(
        default=True, description="NULL stays NULL. `false`: columns are not Nullable, NULL becomes the type's zero."
    )
    bytea: Literal["raw", "hex", "base64"] = Field(
        default="raw", description="What a `bytea` becomes: its bytes, or their text in hexadecimal digits or base64."
    )
    json_type: Literal["string", "json"] = Field(
        default="string",
        alias="json",
        description="What `json` and `jsonb` become: `string`, byte for byte, or ClickHouse's `json`, where the server has it.",
    )
    on_unfit: Literal["null", "fail"] = Field(
        default="null",
        description="A value that its ClickHouse type cannot hold: `null` makes it NULL or the nearest bound, and counts it; "
        "`fail` sets the table aside. In a key the table is set aside always.",
    )
    on_type_change: Literal["fail", "resync"] = Field(
        default="fail",
        description="A column gets another type, and its values cannot be taken over as they are: `fail` sets the table aside, "
        "`resync` copies it again into a new table beside the old one.",
    )
    on_drop_column: Literal["keep", "drop"] = Field(
        default="keep",
        description="A column is dropped at the source: `keep` leaves it in the table, out of the view; `drop` drops it here too.",
    )
    on_new_table: Literal["copy", "report"] = Field(
        default="copy",
        description="A table appears that `include` names: `copy` publishes, copies and follows it; `report` only says so.",
    )
    on_truncate: Literal["apply", "ignore"] = Field(
        default="apply",
        description="TRUNCATE at the source: `apply` empties the table here too, `ignore` keeps the rows.",
    )


class Identity(Section):
    """The pipe's name and mode."""

    name: str = Field(description="Up to 41 lower-case letters, digits and underscores.")
    mode: Literal["cdc", "snapshot", "cdc_only"] = Field(
        default="cdc",
        description="`cdc`: copy, then follow. `snapshot`: copy once, as of one moment. `cdc_only`: follow, without a copy.",
    )

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(
                "a name is up to 41 lower-case letters, digits and underscores, and does not begin with a digit"
            )
        return value


class Pipe(Section):
    """The whole definition."""

    pipe: Identity
    source: Source
    destination: Destination
    tables: Tables = Tables()
    settings: Settings = Settings()

    @property
    def name(self) -> str:
        """The pipe's name."""
        return self.pipe.name

    @property
    def publication(self) -> str:
        """The publication's name."""
        return self.source.publication or f"penstock_{self.name}"

    @property
    def slot(self) -> str:
        """The replication slot's name."""
        return self.source.slot or f"penstock_{self.name}"

    @property
    def database(self) -> str:
        """The destination's database."""
        return self.destination.database or self.name
