"""Reads rows of a table: a part of it as COPY text, or single rows by key. Nothing here decodes a value."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq, sql

from penstock.errors import Retry, SourceError
from penstock.postgres import QUERIES, wire
from penstock.postgres.connection import keep_bytes, kept_bytes, translated
from penstock.postgres.parts import Part, plan_parts
from penstock.postgres.silence import Silence
from penstock.postgres.slot import insert_lsn
from penstock.spill import Spill, Spilled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penstock.lsn import Lsn
    from penstock.postgres.connection import Connection, Connector
    from penstock.table import Table

__all__ = [
    "ColumnsChangedError",
    "FilenodeChangedError",
    "Part",
    "SnapshotGoneError",
    "plan_parts",
    "read_part",
    "read_rows",
]

CHUNK_BYTES = 1 << 20
WAIT_SECONDS = 1.0  # so long nothing came: an empty chunk lets the caller look around
LOCK_TIMEOUT = "5s"
ROWS_A_QUERY = 1000
_NO_SNAPSHOT = (
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.UndefinedObject,  # since 17
    psycopg.errors.ObjectNotInPrerequisiteState,  # its process ends just now
)


class SnapshotGoneError(SourceError):
    """The session that exported the snapshot has ended."""

    retry = Retry.NEVER


class ColumnsChangedError(SourceError):
    """The relation's columns are not those of the plan: the stream will come upon the change, and the plan with it."""

    retry = Retry.AFTER_BACKOFF


class FilenodeChangedError(SourceError):
    """The relation is no longer what was planned: rewritten (VACUUM FULL, CLUSTER, TRUNCATE, ALTER), renamed or dropped."""

    retry = Retry.NEVER


# A part


def read_part(
    connector: Connector,
    part: Part,
    table: Table,
    columns: Sequence[str],
    *,
    snapshot: str | None = None,
    seen: Callable[[Lsn], None] = lambda _lsn: None,
) -> Iterator[bytes]:
    """The part's rows as COPY text, in chunks of whole rows, about 1 MiB each; an empty chunk when nothing came for a second.

    On a connection of its own, in one transaction, of which the caller takes the end of the iteration as success. With ``snapshot`` the
    rows are as that exported snapshot saw them. ``seen`` is told a position behind all that the rows show, before the
    first of them. Raises FilenodeChangedError when the part has to be planned again, else what a
    connection raises; SourceUnavailableError too when another session keeps the table locked.
    """
    with (
        translated(f"reading part {part.index} of {table.full_name}"),
        contextlib.closing(connector.connect(copying=True)) as connection,
    ):
        relation = _locked(connection, part, table, snapshot)
        _require_columns(connection, relation, part, table, columns)
        seen(insert_lsn(connection))
        query = (
            sql.SQL("copy (select {} from only {}{}) to stdout")
            .format(_listed(columns), relation, _condition(connection, part, table))
            .as_bytes(connection)
        )
        keep_bytes(connection)
        pgconn = connection.pgconn
        pgconn.send_query(query)
        silence = Silence(pgconn)
        while not (wire.flush(pgconn, WAIT_SECONDS) and wire.answered(pgconn, WAIT_SECONDS)):
            silence.endure()
            yield b""
        wire.result(pgconn, pq.ExecStatus.COPY_OUT)
        ended = False
        while not ended:
            chunk, ended = wire.drain(pgconn, max_bytes=CHUNK_BYTES, framed=False, wait_seconds=WAIT_SECONDS)
            if chunk or ended:
                silence.heard()
            else:
                silence.endure()
            yield chunk
        wire.result(pgconn, pq.ExecStatus.COMMAND_OK)


def _locked(connection: Connection, part: Part, table: Table, snapshot: str | None) -> sql.Identifier:
    """Begin, lock the relation against rewrites, and make sure that it is the one that was planned (postgres.md 11).

    LOCK takes no snapshot: the one that reads the rows comes after it, or is older and then the comparison tells. It is the same for
    all that follows.
    """
    name = _relation(connection, part, table)
    relation = sql.Identifier(*name)
    connection.execute("begin isolation level repeatable read, read only")
    if snapshot:
        _import(connection, snapshot)
        connection.execute("set local synchronize_seqscans = off")
    connection.execute(sql.SQL("set local lock_timeout = {}").format(LOCK_TIMEOUT))
    try:
        connection.execute(sql.SQL("lock table only {} in access share mode").format(relation))
    except psycopg.errors.UndefinedTable:  # dropped or renamed just now
        raise _changed(table) from None
    if _relation(connection, part, table) != name:
        raise _changed(table)
    return relation


def _require_columns(
    connection: Connection, relation: sql.Identifier, part: Part, table: Table, columns: Sequence[str]
) -> None:
    """Values are read by the plan's codecs: their types must be the plan's.

    What a query's columns are is said by today's catalog, whatever the snapshot: one that is older sees the rows of
    ``pg_attribute`` as they were. A domain is described as the type under it.
    """
    query = sql.SQL("select {} from only {} limit 0").format(_listed(columns), relation)
    try:
        described = connection.execute(query).pgresult
    except psycopg.errors.UndefinedColumn:
        described = None
    wanted = [(part.relation, table.column(name).type.base) for name in columns]
    if described is None or [(oid, type_.oid, type_.modifier) for oid, type_ in wanted] != [
        (described.ftable(place), described.ftype(place), described.fmod(place)) for place in range(len(columns))
    ]:
        raise ColumnsChangedError(
            f"the columns of {table.full_name} have changed while it is copied",
            hint="The copy goes on when the stream has come to the change.",
        )


def _import(connection: Connection, snapshot: str) -> None:
    try:
        connection.execute(sql.SQL("set transaction snapshot {}").format(snapshot))
    except _NO_SNAPSHOT:
        raise SnapshotGoneError(
            "the session that exported the copy's snapshot has ended", hint="The copy starts over under a new one."
        ) from None


def _relation(connection: Connection, part: Part, table: Table) -> tuple[str, str]:
    """Schema and name of the part's relation. Raises FilenodeChangedError where its storage is not the planned one."""
    row = connection.execute(QUERIES["relation"], {"oid": part.relation}).fetchone()
    if row is None or row[2] != part.filenode:
        raise _changed(table)
    return row[0], row[1]


def _changed(table: Table) -> FilenodeChangedError:
    return FilenodeChangedError(
        f"{table.full_name} was rewritten, renamed or dropped while it was copied", hint="Its copy starts over."
    )


def _condition(connection: Connection, part: Part, table: Table) -> sql.Composable:
    """The part's bounds, and the row filter of the publication: what it does not send is not copied."""
    conditions = _bounds(connection, part, table)
    filters = dict(table.row_filters)
    if text := filters.get(part.relation, filters.get(table.oid, "")):
        conditions.append(sql.SQL("({})").format(sql.SQL(text)))  # as pg_get_expr wrote it
    return sql.SQL(" where ") + sql.SQL(" and ").join(conditions) if conditions else sql.SQL("")


def _bounds(connection: Connection, part: Part, table: Table) -> list[sql.Composable]:
    match part.kind:
        case "whole":
            return []
        case "ctid":
            place: sql.Composable = sql.SQL("ctid")
            cast = sql.SQL("tid")
            low, high = (None if bound is None else f"({bound},0)" for bound in (part.low, part.high))
            not_below, below = sql.SQL(">="), sql.SQL("<")
        case "key":
            place, cast = sql.Identifier(part.column), _type(table, part.column)
            low, high = part.low, part.high
            operators = _operators(connection, table)
            not_below, below = operators[part.column, 4], operators[part.column, 1]
    return [
        sql.SQL("{} {} {}::{}").format(place, operator, sql.Literal(bound), cast)
        for operator, bound in ((not_below, low), (below, high))
        if bound is not None
    ]


def _operators(connection: Connection, table: Table) -> dict[tuple[str, int], sql.SQL]:
    """The key's own operators by column and B-tree strategy: the search path is empty, and a type may come from an extension."""
    rows = connection.execute(QUERIES["operators"], {"oid": table.oid})
    return {(name, strategy): sql.SQL(f"operator({operator})") for name, strategy, operator in rows}


def _type(table: Table, column: str) -> sql.SQL:
    return sql.SQL(table.column(column).type.base.sql)  # as format_type wrote it


def _listed(columns: Sequence[str], *, of: str = "") -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(*([of] if of else []), name) for name in columns)


# Single rows

Row = tuple[bytes | Spilled | None, ...]


def read_rows(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    identities: Sequence[tuple[bytes, ...]],
    *,
    spill: Spill | None = None,
) -> dict[tuple[bytes, ...], Row]:
    """PostgreSQL's text of ``columns`` for the rows with these keys, as they are now; rows that are not there are left out.

    An identity holds the text of ``table.key``'s columns, in that order. What is too large for memory goes into ``spill``. Raises
    SourceError.
    """
    found: dict[tuple[bytes, ...], Row] = {}
    spill = spill or Spill()
    with translated(f"reading rows of {table.full_name} again"):
        operators = _operators(connection, table)
        for start in range(0, len(identities), ROWS_A_QUERY):
            some = identities[start : start + ROWS_A_QUERY]
            statement = _statement(table, columns, len(some), operators).as_bytes(connection)
            with kept_bytes(connection):
                for answer in _answers(connection, statement, some):
                    texts = (answer.get_value(0, 1 + each) for each in range(len(columns)))
                    found[some[int(answer.get_value(0, 0) or b"0")]] = tuple(
                        [None if text is None else spill.keep(text) for text in texts]
                    )
    return found


def _statement(
    table: Table, columns: Sequence[str], count: int, operators: dict[tuple[str, int], sql.SQL]
) -> sql.Composed:
    """Asks for ``count`` keys. Its parameters are texts, key by key."""
    width = len(table.key)
    wanted = [sql.Identifier(f"k{place}") for place in range(width)]

    def numbered(key: int) -> sql.Composed:
        marks = [sql.SQL(str(key)), *(sql.SQL(f"${key * width + place + 1}::text") for place in range(width))]
        return sql.SQL("({})").format(sql.SQL(", ").join(marks))

    equal = [
        sql.SQL("t.{} {} w.{}::{}").format(sql.Identifier(name), operators[name, 3], column, _type(table, name))
        for name, column in zip(table.key, wanted, strict=True)
    ]
    return sql.SQL("select w.place, {} from (values {}) w (place, {}) join {}{} t on {}").format(
        _listed(columns, of="t"),
        sql.SQL(", ").join([numbered(key) for key in range(count)]),
        sql.SQL(", ").join(wanted),
        sql.SQL("" if table.partitioned else "only "),
        sql.Identifier(table.schema, table.name),
        sql.SQL(" and ").join(equal),
    )


def _answers(
    connection: Connection, statement: bytes, identities: Sequence[tuple[bytes, ...]]
) -> Iterator[pq.abc.PGresult]:
    """The rows one by one, each a result of its own (PostgreSQL manual, 34.6): all together may be larger than memory."""
    pgconn = connection.pgconn
    pgconn.send_query_params(statement, [text for identity in identities for text in identity])
    pgconn.set_single_row_mode()
    while True:
        silence = Silence(pgconn)
        while not (wire.flush(pgconn, WAIT_SECONDS) and wire.answered(pgconn, WAIT_SECONDS)):
            silence.endure()
        result = wire.result(pgconn, pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_OK)
        if result.status == pq.ExecStatus.TUPLES_OK:
            wire.finish(pgconn)
            return
        yield result
