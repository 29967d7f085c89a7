"""Reads what the source's catalog says about tables. The only place that knows pg_class, pg_attribute, pg_type and pg_index.

A partitioned table is one table with leaves; a child of inheritance is a table of its own. Temporary, unlogged and foreign
tables are left out: logical decoding has nothing of theirs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import namedtuple_row

from penstock.errors import SchemaConflictError
from penstock.postgres import QUERIES
from penstock.postgres.connection import kept_bytes, translated
from penstock.table import Column, Leaf, ReplicaIdentity, Table, Type, TypeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from penstock.postgres.connection import Connection

_KINDS = {
    "b": TypeKind.BASE,
    "e": TypeKind.ENUM,
    "d": TypeKind.DOMAIN,
    "c": TypeKind.COMPOSITE,
    "r": TypeKind.RANGE,
    "m": TypeKind.MULTIRANGE,
}
NARROWED_SINCE = 15_00_00  # a publication may send some of a table's columns and rows only
_ROW_OVERHEAD = 28  # bytes of a heap tuple's header and line pointer
_USUAL_WIDTH = 32  # what the planner takes for a column of varying length


def read_tables(connection: Connection, matches: Callable[[str], bool], publication: str = "") -> list[Table]:
    """The tables whose ``schema.name`` matches, by schema and name, as far as ``publication`` sends them. Raises SourceError."""
    return _read(connection, lambda row: matches(f"{row.nspname}.{row.relname}"), publication, sizes=True)


def look(connection: Connection, oids: Collection[int], publication: str = "") -> dict[int, Table]:
    """Tables by oid as they are now, without estimates: this waits for nobody's lock. Those that are gone are left out."""
    return {table.oid: table for table in _read(connection, lambda row: row.oid in oids, publication, sizes=False)}


def names(connection: Connection) -> dict[int, str]:
    """``schema.name`` of every table that can be followed, by oid."""
    with translated("reading the catalog"), kept_bytes(connection):
        return {row.oid: f"{row.nspname}.{row.relname}" for row in _fetch(connection, "tables")}


def exists(connection: Connection, oid: int) -> bool:
    """Whether there is such a relation, of whatever kind: one that is gone never comes back."""
    with translated("reading the catalog"):
        return connection.execute("select 1 from pg_catalog.pg_class where oid = %s", (oid,)).fetchone() is not None


def _read(connection: Connection, wanted: Callable[[Any], bool], publication: str, *, sizes: bool) -> list[Table]:
    with translated("reading the catalog"), kept_bytes(connection), connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")  # one picture for all queries
        rows = [row for row in _fetch(connection, "tables") if wanted(row)]
        leaves: dict[int, list[Any]] = defaultdict(list)
        for leaf in _fetch(connection, "leaves", oids=[row.oid for row in rows if row.partitioned]):
            leaves[leaf.root].append(leaf)
        oids = [row.oid for row in rows] + [leaf.oid for each in leaves.values() for leaf in each]
        catalog = _Catalog.read(connection, oids, publication, sizes=sizes)
    return [catalog.table(row, leaves[row.oid]) for row in rows]


def missing_values(connection: Connection, table: Table, columns: Mapping[int, str]) -> dict[str, str] | None:
    """What rows that are older than these columns, by number, show for them, as text; left out where that is NULL.

    PostgreSQL keeps such a value for a constant default, until the table is rewritten: None when it was, since ``table`` was read.
    Raises SchemaConflictError where partitions differ: then there is no single value.
    """
    filenodes = dict(table.storage)
    found: dict[str, set[str | None]] = {name: set() for name in columns.values()}
    with translated(f"reading the defaults of {table.full_name}"):
        for row in _fetch(connection, "missing_values", root=table.oid, oids=list(filenodes), numbers=list(columns)):
            if not row.kept and row.filenode != filenodes[row.attrelid]:
                return None
            found[columns[row.number]].add(row.value if row.kept else None)
    if any(len(values) > 1 for values in found.values()):
        raise SchemaConflictError(
            f"the partitions of {table.full_name} have different values for rows that are older than a column",
            hint=f"Copy it again: penstock resync PIPE.toml {table.full_name}",
        )
    return {name: value for name, values in found.items() for value in values if value is not None}


def _fetch(connection: Connection, name: str, **parameters: Any) -> list[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(QUERIES[name], parameters).fetchall()


def _narrowed(connection: Connection, oids: Sequence[int], publication: str) -> dict[int, Any]:
    """Columns and row filter by relation, of those that the publication sends; before 15 it sends all."""
    if not publication or connection.info.server_version < NARROWED_SINCE:
        return {}
    sent = {row.oid for row in _fetch(connection, "published", publication=publication)}
    wanted = [oid for oid in oids if oid in sent]
    return {row.oid: row for row in _fetch(connection, "narrowed", oids=wanted, publication=publication)}


def _grouped(rows: Iterable[Any], key: str) -> Mapping[int, list[Any]]:
    groups: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, key)].append(row)
    return groups


@dataclass(frozen=True, slots=True)
class _Catalog:
    """Rows of the catalog by relation, for putting tables together."""

    columns: Mapping[int, list[Any]]
    indexes: Mapping[int, list[Any]]
    sizes: Mapping[int, Any]
    types: _Types
    narrowed: Mapping[int, Any]  # what is published of a relation

    @classmethod
    def read(cls, connection: Connection, oids: Sequence[int], publication: str, *, sizes: bool) -> _Catalog:
        columns = _fetch(connection, "columns", oids=oids)
        return cls(
            columns=_grouped(columns, "attrelid"),
            indexes=_grouped(_fetch(connection, "identities", oids=oids), "indrelid"),
            sizes={row.oid: row for row in _fetch(connection, "sizes", oids=oids)} if sizes else {},
            types=_Types.read(connection, {(row.atttypid, row.atttypmod) for row in columns}),
            narrowed=_narrowed(connection, oids, publication),
        )

    def table(self, row: Any, leaf_rows: Sequence[Any]) -> Table:
        columns = tuple(self._column(each) for each in self._live(row.oid))
        leaves = tuple(self._leaf(each) for each in leaf_rows)
        identity, key = self._identity(row, columns), self._key(row)
        if leaves:
            carried = [self._identity(leaf, columns) for leaf in leaf_rows]
            identity = tuple(name for name in self._names(row.oid) if all(name in each for each in carried))
            if any(each and not set(key) <= set(each) for each in carried):
                key = ()  # a delete from that leaf would not say which row
        holders = [self.sizes[oid] for oid in ([leaf.oid for leaf in leaves] or [row.oid]) if oid in self.sizes]
        return Table(
            oid=row.oid,
            schema=row.nspname,
            name=row.relname,
            columns=columns,
            key=key,
            replica_identity=ReplicaIdentity(row.relreplident),
            identity=identity,
            left_out=tuple(each.attname for each in self.columns.get(row.oid, ()) if not self._comes(each)),
            row_filters=self._filters([row.oid, *(leaf.oid for leaf in leaves)]),
            leaves=leaves,
            estimated_rows=sum(self._rows(size) for size in holders),
            estimated_bytes=sum(size.bytes for size in holders),
            partitioned=row.partitioned,
            numbers=row.relnatts,
            joined=tuple(sorted((each.oid, each.joined) for each in leaf_rows)) if row.partitioned else (),
            storage=tuple(sorted((each.oid, each.filenode or 0) for each in (leaf_rows if row.partitioned else [row]))),
        )

    def _live(self, oid: int) -> list[Any]:
        return [row for row in self.columns.get(oid, ()) if self._comes(row)]

    def _comes(self, row: Any) -> bool:
        """Whether the publication sends a column. One that does not have the table yet will send all but the generated ones."""
        published = self.narrowed.get(row.attrelid)
        return not row.generated if published is None else row.attname in published.names

    def _filters(self, oids: Iterable[int]) -> tuple[tuple[int, str], ...]:
        return tuple(
            (oid, self.narrowed[oid].filter) for oid in oids if oid in self.narrowed and self.narrowed[oid].filter
        )

    def _names(self, oid: int) -> tuple[str, ...]:
        return tuple(row.attname for row in self._live(oid))

    def _column(self, row: Any) -> Column:
        type_ = self.types.of(row.atttypid, row.atttypmod)
        return Column(
            name=row.attname,
            number=row.attnum,
            type=type_,
            # A NULL can get past a domain's NOT NULL (PostgreSQL manual, CREATE DOMAIN, Notes): only the column's own counts.
            not_null=row.not_null,
            dimensions=self.types.dimensions(row.atttypid, row.attndims),
            # Not attstorage: what was stored out of line before SET STORAGE PLAIN still is.
            may_be_unchanged=row.attlen == -1 and self.types.toastable(row.atttypid),
            stamp=row.stamp,
        )

    def _leaf(self, row: Any) -> Leaf:
        identity = ReplicaIdentity(row.relreplident)
        return Leaf(row.oid, row.nspname, row.relname, identity, self._names(row.oid), row.stamp)

    def _key(self, row: Any) -> tuple[str, ...]:
        """The columns of USING INDEX, else of the primary key, if its index is immediate (postgres.md 21)."""
        by_index = row.relreplident == ReplicaIdentity.INDEX.value
        for index in self.indexes.get(row.oid, ()):
            if index.indimmediate and (index.indisreplident if by_index else index.indisprimary):
                return tuple(index.columns) if set(index.columns) <= set(self._names(row.oid)) else ()
        return ()

    def _identity(self, row: Any, columns: Sequence[Column]) -> tuple[str, ...]:
        """What an old tuple of this relation carries, by name."""
        match ReplicaIdentity(row.relreplident):
            case ReplicaIdentity.FULL:
                return tuple(column.name for column in columns)
            case ReplicaIdentity.NOTHING:
                return ()
            case _:
                key = self._key(row)
                return tuple(name for name in self._names(row.oid) if name in key)

    def _rows(self, size: Any) -> int:
        """As the planner estimates: the density of the last ANALYZE times today's pages; without one, by the columns' width."""
        if size.relpages > 0 and size.reltuples >= 0:
            return int(size.reltuples / size.relpages * size.pages)
        width = sum(row.attlen if row.attlen > 0 else _USUAL_WIDTH for row in self.columns.get(size.oid, ()))
        return int(size.heap_bytes // (width + _ROW_OVERHEAD))


@dataclass(frozen=True, slots=True)
class _Types:
    """The types that columns use, with all that they are made of."""

    rows: Mapping[int, Any]
    names: Mapping[tuple[int, int], str]

    @classmethod
    def read(cls, connection: Connection, used: set[tuple[int, int]]) -> _Types:
        rows: dict[int, Any] = {}
        pairs = set(used)
        while missing := {oid for oid, _ in pairs} - rows.keys():
            rows |= {row.oid: row for row in _fetch(connection, "types", oids=sorted(missing))}
            missing -= rows.keys()
            if missing:  # dropped while we read: the next reading knows better
                pairs = {pair for pair in pairs if pair[0] not in missing}
            pairs |= {inner for pair in pairs if (inner := _inner(rows[pair[0]], pair[1]))}
        ordered = sorted(pairs)
        named = _fetch(
            connection, "type_names", oids=[each[0] for each in ordered], modifiers=[each[1] for each in ordered]
        )
        return cls(rows, {(row.oid, row.modifier): row.format_type for row in named})

    def of(self, oid: int, modifier: int) -> Type:
        """The type with its base type or element."""
        row = self.rows[oid]
        inner = _inner(row, modifier)
        return Type(
            oid=oid,
            name=row.name,
            sql=self.names[oid, modifier],
            kind=TypeKind.ARRAY if row.element else _KINDS.get(row.typtype, TypeKind.BASE),
            modifier=modifier,
            inner=self.of(*inner) if inner else None,
            delimiter=row.delimiter,
        )

    def dimensions(self, oid: int, declared: int) -> int:
        """Declared dimensions, a domain's own included; an array has at least one."""
        row = self.rows[oid]
        if row.typtype == "d":
            return self.dimensions(row.typbasetype, int(row.typndims) or declared)
        return max(declared, 1) if row.element else 0

    def toastable(self, oid: int) -> bool:
        """Whether values of the type can be stored out of line."""
        return bool(self.rows[oid].toastable)


def _inner(row: Any, modifier: int) -> tuple[int, int] | None:
    """A domain's base type with the domain's modifier; an array's element with the array's."""
    if row.typtype == "d":
        return row.typbasetype, row.typtypmod
    return (row.element, modifier) if row.element else None
