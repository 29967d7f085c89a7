"""One source relation at one version of its schema, as PostgreSQL's catalog describes it. No behaviour of either side."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class TypeKind(Enum):
    """What a PostgreSQL type is made of."""

    BASE = "base"
    ENUM = "enum"
    DOMAIN = "domain"
    ARRAY = "array"
    COMPOSITE = "composite"
    RANGE = "range"
    MULTIRANGE = "multirange"


@dataclass(frozen=True, slots=True)
class Type:
    """A PostgreSQL type as a column uses it. ``modifier`` is pg_attribute.atttypmod, -1 for none."""

    oid: int
    name: str  # pg_type.typname: "int4", "numeric", "_text"
    sql: str  # format_type(oid, modifier): "integer", "numeric(10,2)", "text[]"
    kind: TypeKind = TypeKind.BASE
    modifier: int = -1
    inner: Type | None = None  # a domain's base type, an array's element
    delimiter: str = ","  # between its values in an array's text

    @property
    def base(self) -> Type:
        """The type under all domains."""
        return self.inner.base if self.kind is TypeKind.DOMAIN and self.inner else self


@dataclass(frozen=True, slots=True)
class Column:
    """A live column that copy and stream both carry."""

    name: str
    number: int  # pg_attribute.attnum
    type: Type
    not_null: bool = False
    dimensions: int = 0  # declared array dimensions
    may_be_unchanged: bool = False  # can be stored out of line: an UPDATE may leave it out ('u')
    stamp: str = ""  # xmin of its pg_attribute row: another one after every ALTER of the column


class ReplicaIdentity(Enum):
    """pg_class.relreplident."""

    DEFAULT = "d"
    NOTHING = "n"
    FULL = "f"
    INDEX = "i"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A relation whose changes belong to its table: a partition that holds rows. Its columns may stand in another order."""

    oid: int
    schema: str
    name: str
    replica_identity: ReplicaIdentity
    column_names: tuple[str, ...]  # attnum order, without dropped and generated ones
    stamp: str = (
        ""  # xmin of its pg_class row: the transaction that made, truncated or rewrote it, or changed it otherwise
    )


@dataclass(frozen=True, slots=True)
class Table:
    """A table, or the root of a partitioned one with its leaves.

    ``columns`` stand in attnum order and leave out dropped columns and those that do not come. ``key`` holds the
    columns of an immediate unique index without NULLs: the primary key, or the one of REPLICA IDENTITY USING
    INDEX; it is empty for a keyless table. ``identity`` holds the columns an old tuple carries.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    replica_identity: ReplicaIdentity
    identity: tuple[str, ...] = ()
    left_out: tuple[
        str, ...
    ] = ()  # names of columns that do not come: generated, or not in the publication's column list
    leaves: tuple[Leaf, ...] = ()  # empty for an ordinary table
    estimated_rows: int = 0
    estimated_bytes: int = 0
    partitioned: bool = False  # a root, which holds no rows itself; it may have no leaves yet
    numbers: int = 0  # pg_class.relnatts: so many column numbers have been given out, dropped ones included
    row_filters: tuple[
        tuple[int, str], ...
    ] = ()  # oids of published relations, and what the publication's row filters say
    storage: tuple[tuple[int, int], ...] = ()  # oid and filenode of each relation that holds rows
    joined: tuple[tuple[int, str], ...] = ()  # oid of each leaf, and the transactions that attached it

    @property
    def full_name(self) -> str:
        """``schema.name``, for people and for matching include and exclude; never for SQL."""
        return f"{self.schema}.{self.name}"

    @property
    def old_is_full(self) -> bool:
        """Whether an old tuple marked 'O' truly holds every value: the root's marker lies when a leaf has less."""
        identities = {self.replica_identity, *(leaf.replica_identity for leaf in self.leaves)}
        return identities == {ReplicaIdentity.FULL}

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
