"""A plan: a table compiled through the type map. Which codec, which ClickHouse column, which key.

Both decoders, the DDL and the writer work from it; it is the only place where a source column gets its destination.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from penstock.errors import ConfigError, KeyMissingError, SchemaConflictError
from penstock.override import overridden
from penstock.typemap import AS_TEXT, Capabilities, Codec, Forms, Kind, Target, target_of, with_null

if TYPE_CHECKING:
    from penstock.config import Pipe, TableOptions
    from penstock.table import Column, Table


class Shape(Enum):
    """What the destination's table holds."""

    CURRENT = "current"  # the rows as they are now: ReplacingMergeTree by key
    HISTORY = "history"  # every change a row
    NULL = "null"  # nothing: Null engine, feeds materialized views


class Operation(Enum):
    """``_operation`` of a history row, as its Enum8 value."""

    COPY = 0
    INSERT = 1
    UPDATE = 2
    DELETE = 3
    TRUNCATE = 4


@dataclass(frozen=True, slots=True)
class PlanColumn:
    """One source column on its way. ``nullable`` means that a null map precedes the values in the Native column.

    ``null_is_unfit``: the source has NULL here and the destination has none, so each is counted.
    """

    name: str  # in PostgreSQL and in ClickHouse
    codec: Codec
    clickhouse: str  # the type in DDL, with Nullable
    wire: str  # the type the Native block announces, with Nullable
    nullable: bool
    may_be_unchanged: bool  # an UPDATE may leave it out ('u')
    sql: str  # PostgreSQL's name of the type, for casts when the source is read again
    null_is_unfit: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How one table's rows become blocks. Column order is the source's, then the metadata columns (``metadata``).

    ``key`` holds indices into ``columns``: the sorting key without metadata. A row that differs from its old tuple in a
    ``compared`` column, as encoded, is preceded by a tombstone (in a history: by a row with the operation ``delete``).
    ``identity`` holds the indices that find a row in the source again, part of ``key``; empty for a keyless table, whose
    every UPDATE is a tombstone that holds the whole old row, and the new row.
    An unfit value in the identity rejects the row: two keys must never merge.
    """

    table: Table
    target: str  # table name in the destination's database
    columns: tuple[PlanColumn, ...]
    key: tuple[int, ...]
    identity: tuple[int, ...]
    shape: Shape
    partition_by: str
    metadata_prefix: str
    fail_on_unfit: bool
    excluded: frozenset[str] = field(default_factory=frozenset)

    @property
    def keyless(self) -> bool:
        """Whether the whole row is its own key."""
        return not self.identity

    @property
    def event_log(self) -> bool:
        """Whether rows are events, none of which takes another's place: those of a history, and of a table without a key."""
        return self.shape is Shape.HISTORY or (self.keyless and self.shape is Shape.CURRENT)

    @property
    def at_seam(self) -> bool:
        """Whether copy and stream must meet exactly: a streamed row cannot take the place of a copied one."""
        return self.event_log or bool(self.moving)

    @property
    def moving(self) -> tuple[int, ...]:
        """Columns of the sorting key whose old value no DELETE or UPDATE tells: it is looked up in the destination."""
        if self.shape is not Shape.CURRENT or self.keyless or self.table.old_is_full:
            return ()
        return tuple(index for index in self.key if index not in self.identity)

    @property
    def compared(self) -> tuple[int, ...]:
        """Columns of which a change makes an UPDATE two rows, as the old one would stay: in a history only those that name the row."""
        return self.identity if self.shape is Shape.HISTORY else self.key

    @property
    def wire_metadata(self) -> tuple[tuple[str, str], ...]:
        """Name and type of the metadata columns a block carries, in the order in which they follow the source's columns."""
        prefix = self.metadata_prefix
        always = ((f"{prefix}version", "UInt128"), (f"{prefix}is_deleted", "UInt8"))
        if self.shape is not Shape.HISTORY:
            return always
        return (*always, (f"{prefix}operation", OPERATION_TYPE), (f"{prefix}committed_at", "DateTime64(6, 'UTC')"))

    @property
    def column_names(self) -> tuple[str, ...]:
        """Every column a block carries, for the insert's column list."""
        return (*(column.name for column in self.columns), *(name for name, _ in self.wire_metadata))

    @property
    def casts(self) -> bool:
        """Whether a column is sent as another type than it has in the destination, for ClickHouse to cast."""
        return any(column.wire != column.clickhouse for column in self.columns)

    def source_of(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """For each column of a tuple with these names, the index in ``columns`` it goes to, or -1 where it is left out."""
        places = {column.name: index for index, column in enumerate(self.columns)}
        return tuple(places.get(name, -1) for name in names)


OPERATION_TYPE = "Enum8(" + ", ".join(f"'{each.name.lower()}' = {each.value}" for each in Operation) + ")"
METADATA_NAMES = ("version", "is_deleted", "synced_at", "operation", "committed_at", "copies")


def compile_plan(table: Table, pipe: Pipe, server: Capabilities) -> Plan:
    """Compile ``table`` by the pipe's settings for a server.

    Raises KeyMissingError where rows could not be told apart, SchemaConflictError where a name is no UTF-8, ConfigError where the
    settings do not fit the table.
    """
    _refuse_undecodable_names(table)
    options = pipe.tables.options_for(table.full_name)
    _refuse_unknown_columns(table, options)
    kept = [column for column in table.columns if column.name not in options.exclude_columns]
    shape = Shape(options.shape)
    key_names = _key_names(table, options, shape)
    nullable = pipe.settings.nullable
    forms = Forms(bytea=pipe.settings.bytea, json=pipe.settings.json_type)
    columns = tuple(
        _plan_column(
            column,
            _target(column, server, forms, wanted=options.types.get(column.name), key=key_names),
            keyed=column.name in table.key,
            nullable=nullable,
        )
        for column in kept
    )
    places = {column.name: index for index, column in enumerate(columns)}
    _refuse_metadata_clash(table, columns, pipe.destination.metadata_prefix)
    _refuse_subcolumn_clash(table, columns)
    return Plan(
        table=table,
        target=pipe.tables.target_of(table.schema, table.name),
        columns=columns,
        key=tuple(places[name] for name in key_names),
        identity=tuple(places[name] for name in table.key),
        shape=shape,
        partition_by=options.partition_by,
        metadata_prefix=pipe.destination.metadata_prefix,
        fail_on_unfit=pipe.settings.on_unfit == "fail",
        excluded=frozenset(options.exclude_columns),
    )


def _target(column: Column, server: Capabilities, forms: Forms, *, wanted: str | None, key: tuple[str, ...]) -> Target:
    """A column of the sorting key keeps PostgreSQL's text where its type holds other values, or changes them.

    So does JSON where there is no key: two rows that differ only in what ClickHouse's type leaves out would be one.
    """
    target = target_of(column, server, forms) if wanted is None else overridden(column, wanted, server)
    if column.name in key and (target.codec.nested or target.codec.kind in _NO_KEY):
        return AS_TEXT
    return AS_TEXT if not key and target.codec.kind is Kind.JSON else target


_NO_KEY = (Kind.GEOMETRY, Kind.JSON)


def _plan_column(column: Column, target: Target, *, keyed: bool, nullable: bool) -> PlanColumn:
    """NULL is possible where the source allows it, or where some values have no place in the type; never in the source's key."""
    has_null = nullable and not keyed and (not column.not_null or target.always_nullable)
    nested = target.codec.nested

    def wrapped(name: str) -> str:
        return with_null(name) if has_null and not nested else name

    return PlanColumn(
        name=column.name,
        codec=target.codec,
        clickhouse=wrapped(target.clickhouse),
        wire=wrapped(target.wire),
        nullable=has_null and not nested,
        may_be_unchanged=column.may_be_unchanged,
        sql=column.type.sql,
        null_is_unfit=has_null and nested,
    )


def _key_names(table: Table, options: TableOptions, shape: Shape) -> tuple[str, ...]:
    """The sorting key: ``order_by``, then what is missing of the source's key."""
    if not table.key and shape is Shape.CURRENT and not table.old_is_full:
        raise KeyMissingError(
            f"{table.full_name} has neither a primary key nor REPLICA IDENTITY FULL, so updates and deletes cannot be followed",
            hint=f'Add a primary key, or run: {identity_statement(table)} Or take it with shape = "history".',
        )
    hidden = [name for name in table.key if name in options.exclude_columns]
    if hidden:
        raise ConfigError(
            f"{table.full_name}: exclude_columns names {', '.join(hidden)}, which belongs to the key",
            hint="Take the key's columns out of exclude_columns.",
        )
    if not table.key:
        return options.order_by  # every column is known of every event
    return (*options.order_by, *(name for name in table.key if name not in options.order_by))


def identity_statement(table: Table) -> str:
    """The statement that makes old tuples whole, for people to run."""

    def quoted(name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    return f"ALTER TABLE {quoted(table.schema)}.{quoted(table.name)} REPLICA IDENTITY FULL;"


def _refuse_undecodable_names(table: Table) -> None:
    """A SQL_ASCII database takes any bytes for a name; as lone surrogates they can be shown, but stand in no statement."""
    names = {table.full_name: "its name"}
    names |= {f"{leaf.schema}.{leaf.name}": "the name of a partition" for leaf in table.leaves}
    for column in table.columns:
        names |= {column.name: f'the name of column "{column.name}"', column.type.sql: "the name of a type"}
    for name, what in names.items():
        if any(0xD800 <= ord(character) <= 0xDFFF for character in name):
            raise SchemaConflictError(
                f"{table.full_name}: {what} is not UTF-8, so ClickHouse cannot have it",
                hint="Rename it in the source; or leave the table out: exclude in [tables], where ? and * stand for the odd bytes.",
            )


def _refuse_unknown_columns(table: Table, options: TableOptions) -> None:
    known = {column.name for column in table.columns}
    for setting, names in (
        ("exclude_columns", options.exclude_columns),
        ("order_by", options.order_by),
        ("types", options.types),
    ):
        for name in names:
            if name not in known and not (setting == "exclude_columns" and name in table.left_out):
                raise ConfigError(
                    f'{table.full_name}: {setting} names column "{name}", which the table does not have',
                    hint=f"Its columns are {', '.join(sorted(known))}.",
                )


def _refuse_metadata_clash(table: Table, columns: tuple[PlanColumn, ...], prefix: str) -> None:
    taken = {prefix + name for name in METADATA_NAMES}
    for column in columns:
        if column.name in taken:
            raise ConfigError(
                f'{table.full_name} has a column "{column.name}", which is the name of a metadata column',
                hint="Set metadata_prefix in [destination] to another prefix, or put the column into exclude_columns.",
            )


_SUBCOLUMNS = ("null", "size", "size0", "keys", "values")


def _refuse_subcolumn_clash(table: Table, columns: tuple[PlanColumn, ...]) -> None:
    """Beside a column ``x``, ClickHouse takes ``x.size`` for a part of it: up to 26.7 every aggregation of such a table fails.

    Of JSON any name can be a part.
    """
    names = {column.name for column in columns}
    documents = {column.name for column in columns if column.codec.kind is Kind.JSON}
    for name in (column.name for column in columns):
        wholes = [name[:place] for place, character in enumerate(name) if character == "."]
        for whole in wholes:
            if whole in documents or (whole in names and name[len(whole) + 1 :] in _SUBCOLUMNS):
                raise ConfigError(
                    f'{table.full_name} has the columns "{whole}" and "{name}", and ClickHouse calls a part of the first like the second',
                    hint="Put one of them into exclude_columns, or rename it in the source.",
                )
