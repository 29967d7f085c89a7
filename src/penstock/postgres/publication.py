"""The publication: made and extended where it is Penstock's own, compared and never altered where it was given."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from penstock.errors import PublicationError, SourceChangedError
from penstock.language import phrase
from penstock.postgres import QUERIES
from penstock.postgres.connection import translated
from penstock.postgres.trouble import COPY_AGAIN
from penstock.postgres.waiting import ALONE, LockedError, Waiting, limited, locked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from penstock.postgres.connection import Connection
    from penstock.table import Table

ROOT_PUBLISHING = 13_00_00  # publish_via_partition_root exists from here on
SCHEMAS_SINCE = 15_00_00  # a publication may have all tables of a schema


def ensure_publication(
    connection: Connection, name: str, tables: Sequence[Table], *, owned: bool, waiting: Waiting = ALONE
) -> bool:
    """Make the publication, or add the tables it lacks; returns whether anything was changed.

    One that is not ``owned`` is never altered: PublicationError names the tables it lacks. Partitioned tables are published as their
    root; on 12, which cannot, as their leaves. Raises SourceRefusedError where a privilege is missing, SourceChangedError when a
    table has another name by now, and LockedError where somebody keeps one locked.
    """
    lack = lacking(connection, name, tables, owned=owned)
    if lack is None:
        return False
    if not owned and lack.exists:
        raise PublicationError(
            f'the publication "{name}" does not publish {", ".join(table.full_name for table in lack.tables)}',
            hint=f"Run: {lack.statement}",
        )
    if not owned:
        raise PublicationError(
            f'the publication "{name}" does not exist',
            hint=f"Leave source.publication empty, or run: {lack.statement}",
        )
    doing = f'adding tables to publication "{name}"' if lack.exists else f'creating publication "{name}"'
    with translated(doing), _named(), limited(connection, doing, waiting), connection.transaction():
        connection.execute(lack.composed)
        if wrong := lacking(connection, name, tables, owned=owned):
            raise SourceChangedError(
                f"{wrong.tables[0].full_name} is another table by now: it was renamed just now", hint="Try again."
            )
    return True


def publish(connection: Connection, name: str, tables: Sequence[Table], *, owned: bool, waiting: Waiting) -> set[int]:
    """The same for all but those tables that somebody keeps locked: returns these, by oid."""
    late: set[int] = set()
    while True:
        wanted = [table for table in tables if table.oid not in late]
        try:
            ensure_publication(connection, name, wanted, owned=owned, waiting=waiting)
        except LockedError:
            if lack := lacking(connection, name, wanted, owned=owned):
                late |= _locked(connection, lack.tables)
        else:
            return late


def _locked(connection: Connection, tables: Sequence[Table]) -> set[int]:
    roots = connection.info.server_version >= ROOT_PUBLISHING
    found = locked(connection, [oid for table in tables for oid in members(table, roots=roots)])
    return {table.oid for table in tables if found.intersection(members(table, roots=roots))}


@dataclass(frozen=True, slots=True)
class Lack:
    """What a publication lacks: itself, or tables of it."""

    exists: bool
    tables: tuple[Table, ...]
    composed: sql.Composed
    statement: str  # the same for people


def lacking(connection: Connection, name: str, tables: Sequence[Table], *, owned: bool) -> Lack | None:
    """What has to be done for the publication to have these tables, None for nothing. Changes nothing."""
    with translated(f'publication "{name}"'):
        exists = connection.execute(QUERIES["publication"], {"name": name}).fetchone() is not None
    if not exists:
        composed, missing = _create(connection, name, tables), list(tables)
    else:
        roots = owned and connection.info.server_version >= ROOT_PUBLISHING
        there = published(connection, name)
        missing = unpublished(tables, there, roots=roots)
        members = _members(connection, [_without(table, there) for table in missing])
        composed = sql.SQL("alter publication {} add table {}").format(sql.Identifier(name), members)
    if exists and not missing:
        return None
    return Lack(exists, tuple(missing), composed, _text(connection, composed))


@contextmanager
def _named() -> Iterator[None]:
    """Tables are published by name, and names change."""
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise SourceChangedError(
            f"{error.diag.message_primary}: it was renamed or dropped just now", hint="Try again."
        ) from None


def _without(table: Table, oids: set[int]) -> Table:
    """The table without the partitions that are published already."""
    return replace(table, leaves=tuple(leaf for leaf in table.leaves if leaf.oid not in oids))


def statement(connection: Connection, name: str, tables: Sequence[Table]) -> str:
    """The statement that makes a publication of these tables, for people to run."""
    return _text(connection, _create(connection, name, tables))


def _text(connection: Connection, composed: sql.Composed) -> str:
    """A statement for people; empty where a name is not UTF-8, which no statement of ours can hold."""
    try:
        return f"{composed.as_string(connection)};"
    except UnicodeEncodeError:
        return ""


def _create(connection: Connection, name: str, tables: Sequence[Table]) -> sql.Composed:
    statement = sql.SQL("create publication {}").format(sql.Identifier(name))
    if _published_relations(connection, tables):
        statement += sql.SQL(" for table {}").format(_members(connection, tables))
    if connection.info.server_version >= ROOT_PUBLISHING:
        statement += sql.SQL(" with (publish_via_partition_root = true)")
    return statement


def _published_relations(connection: Connection, tables: Iterable[Table]) -> list[tuple[str, str, str]]:
    """Prefix, schema and name of what stands in a publication: without ONLY a parent would bring its children along."""
    roots = connection.info.server_version >= ROOT_PUBLISHING
    relations: list[tuple[str, str, str]] = []
    for table in tables:
        if not table.partitioned:
            relations.append(("only ", table.schema, table.name))
        elif roots:
            relations.append(("", table.schema, table.name))
        else:
            relations += (("only ", leaf.schema, leaf.name) for leaf in table.leaves)
    return relations


def members(table: Table, *, roots: bool) -> tuple[int, ...]:
    """Oids of the relations that stand in a publication for the table; ``roots``: partitioned tables can be published."""
    return (table.oid,) if roots or not table.partitioned else tuple(leaf.oid for leaf in table.leaves)


def _members(connection: Connection, tables: Iterable[Table]) -> sql.Composed:
    members = _published_relations(connection, tables)
    return sql.SQL(", ").join(sql.SQL(prefix) + sql.Identifier(schema, name) for prefix, schema, name in members)


def published(connection: Connection, name: str) -> set[int]:
    """Oids of the relations whose changes the publication sends: roots or leaves, as they arrive. Raises PublicationError."""
    with translated(f'publication "{name}"'):
        found = []
        if connection.info.server_version >= SCHEMAS_SINCE:
            found = connection.execute(QUERIES["published"], {"publication": name}).fetchall()
        # that does not wait for locks before 16, nor where there is no table; and it says when there is no publication
        return {oid for (oid,) in found or connection.execute(QUERIES["published_before_15"], {"name": name})}


def published_tables(connection: Connection, name: str) -> set[int]:
    """Oids of the relations that the publication sends, and of the partitioned tables that they belong to."""
    with translated(f'publication "{name}"'):
        oids = list(published(connection, name))
        return {oid for (oid,) in connection.execute(QUERIES["with_roots"], {"oids": oids})}


def listed(connection: Connection, name: str) -> dict[str, str]:
    """What stands in the publication itself (relations by oid, ``schema NAME``), and what tells when it was put there."""
    queries = ["listed"] + ["listed_schemas"] * (connection.info.server_version >= SCHEMAS_SINCE)
    with translated(f'publication "{name}"'):
        return {what: since for each in queries for what, since in connection.execute(QUERIES[each], {"name": name})}


def missing(connection: Connection, name: str, tables: Sequence[Table]) -> list[Table]:
    """Those tables whose changes the publication does not send. Raises PublicationError when it is gone."""
    try:
        oids = published(connection, name)
    except PublicationError:
        raise PublicationError(
            f'the publication "{name}" is gone',
            hint=phrase(COPY_AGAIN),
        ) from None
    return unpublished(tables, oids, roots=connection.info.server_version >= ROOT_PUBLISHING)


def unpublished(tables: Iterable[Table], oids: set[int], *, roots: bool) -> list[Table]:
    """The tables that are not, or not wholly, among the published relations.

    ``roots``: a partitioned table without leaves must be there itself; otherwise there is nothing of it that could be published yet.
    """
    return [
        table
        for table in tables
        if table.oid not in oids and not (table.partitioned and _leaves_in(table, oids, roots=roots))
    ]


def _leaves_in(table: Table, oids: set[int], *, roots: bool) -> bool:
    return bool(table.leaves or not roots) and all(leaf.oid in oids for leaf in table.leaves)


def withdraw(connection: Connection, name: str, tables: Collection[int], waiting: Waiting) -> list[str]:
    """Take tables, by oid, out of our publication, and their partitions; those that are not in it are no matter.

    Returns the names of relations that stay in it, as somebody keeps them locked.
    """
    doing = f'taking tables out of publication "{name}"'
    late: set[int] = set()
    with translated(doing):
        while True:
            found = connection.execute(QUERIES["published_of"], {"name": name, "oids": list(tables)}).fetchall()
            rows = {oid: sql.Identifier(schema, relation) for oid, schema, relation in found if oid not in late}
            if not rows:
                return [f"{schema}.{relation}" for _, schema, relation in found]
            members = sql.SQL(", ").join(sql.SQL("only ") + each for each in rows.values())
            try:
                with limited(connection, doing, waiting):
                    connection.execute(
                        sql.SQL("alter publication {} drop table {}").format(sql.Identifier(name), members)
                    )
            except LockedError:
                late |= locked(connection, list(rows))


_OURS = "select pg_catalog.pg_has_role(p.pubowner, 'usage') from pg_catalog.pg_publication p where p.pubname = %s"


def is_ours(connection: Connection, name: str) -> bool:
    """Whether there is such a publication, and no administrator made it."""
    with translated(f'publication "{name}"'):
        row = connection.execute(_OURS, [name]).fetchone()
    return row is not None and bool(row[0])


def drop_publication(connection: Connection, name: str) -> bool:
    """Drop it if it exists, and returns whether it is gone now. One that an administrator made, for ``setup`` or by hand, stays.

    Raises LockedError where somebody alters it just now.
    """
    doing = f'dropping publication "{name}"'
    with translated(doing), limited(connection, doing, ALONE):
        row = connection.execute(_OURS, [name]).fetchone()
        if row is not None and not row[0]:
            return False
        connection.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(name)))
    return True
