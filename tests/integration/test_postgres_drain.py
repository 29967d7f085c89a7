"""The compiled drain takes the same bytes off a connection as the plain one, and tells the same ends."""

from __future__ import annotations

import contextlib
import importlib
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import pq

from penstock.postgres import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fix_postgres import Database

    Drain = Callable[..., tuple[bytes, str]]

ROWS = 3000
LARGE = 5_000_000


@pytest.fixture
def drain() -> Drain:
    """Where the extension was not built, this fails: these tests are about it."""
    module = importlib.import_module("penstock.postgres._drain")
    return module.drain  # type: ignore[no-any-return]


@pytest.fixture
def filled(database: Database) -> Database:
    database.execute(
        "create table t (id bigint primary key, note text)",
        f"insert into t select n, 'note ' || n from generate_series(1, {ROWS}) n",
        f"insert into t select 0, repeat('x', {LARGE})",
    )
    return database


@contextlib.contextmanager
def copying(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with contextlib.closing(database.connect()) as connection:
        started(connection.pgconn, b"copy (select * from t order by id) to stdout", pq.ExecStatus.COPY_OUT)
        yield connection


def started(pgconn: Any, query: bytes, status: pq.ExecStatus) -> None:
    pgconn.send_query(query)
    while not wire.answered(pgconn, 10):
        pass
    wire.result(pgconn, status)


def pieces(drain: Drain, pgconn: Any, **options: Any) -> Iterator[bytes]:
    """What comes until the copy ends."""
    deadline = time.monotonic() + 30
    state = "more"
    while state != "end":
        assert time.monotonic() < deadline
        piece, state = drain(pgconn.pgconn_ptr, **{"wait_seconds": 1.0, "framed": False} | options)
        assert state in ("more", "empty", "end")
        yield piece


def split(frames: bytes) -> list[bytes]:
    found, place = [], 0
    while place < len(frames):
        end = place + 4 + int.from_bytes(frames[place : place + 4], "big")
        assert end <= len(frames)
        found.append(frames[place + 4 : end])
        place = end
    return found


@pytest.mark.parametrize("pause", [0.0, 0.001])
def test_copy(filled: Database, drain: Drain, pause: float) -> None:
    with copying(filled) as connection:
        text = b"".join(pieces(drain, connection.pgconn, max_bytes=1 << 16, pause_seconds=pause))
        wire.result(connection.pgconn, pq.ExecStatus.COMMAND_OK)
    expected = b"0\t" + b"x" * LARGE + b"\n" + b"".join(b"%d\tnote %d\n" % (n, n) for n in range(1, ROWS + 1))
    assert text == expected


def test_frames_are_the_payloads_of_the_plain_drain(filled: Database, drain: Drain) -> None:
    with copying(filled) as one, copying(filled) as other:
        frames = b"".join(pieces(drain, one.pgconn, max_bytes=1 << 20, framed=True))
        plain, ended = b"", False
        while not ended:
            more, ended = wire.drain_in_python(other.pgconn, max_bytes=1 << 20, framed=True, wait_seconds=10)
            plain += more
    assert split(frames) == split(plain)
    assert len(split(frames)) == ROWS + 1


def test_it_stops_when_enough_came(filled: Database, drain: Drain) -> None:
    with copying(filled) as connection:
        next(pieces(drain, connection.pgconn, max_bytes=1, wait_seconds=10))  # the large row
        for piece in pieces(drain, connection.pgconn, max_bytes=100):
            assert len(piece) < 200


@pytest.mark.parametrize("wait", [0.0, 0.05])
def test_nothing_but_keepalives(filled: Database, drain: Drain, wait: float) -> None:
    with contextlib.closing(filled.connect(replication="database")) as connection:
        pgconn = connection.pgconn
        connection.execute("CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT")
        command = b"START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'none')"
        started(pgconn, command, pq.ExecStatus.COPY_BOTH)
        began = time.monotonic()
        frames, state = drain(pgconn.pgconn_ptr, max_bytes=1 << 20, framed=True, wait_seconds=wait)
        assert wait <= time.monotonic() - began < wait + 5
        assert state == "empty"
        assert {frame[:1] for frame in split(frames)} <= {b"k"}


def test_a_cut_connection(filled: Database, drain: Drain) -> None:
    """What came before the end is handed out, then the end is told."""
    with copying(filled) as connection:
        pgconn = connection.pgconn
        filled.fetch("select pg_terminate_backend(%s)", pgconn.backend_pid)
        states, text = set(), b""
        while not states & {"end", "error"}:
            piece, state = drain(pgconn.pgconn_ptr, max_bytes=1 << 20, framed=False, wait_seconds=1)
            states.add(state)
            text += piece
        with pytest.raises(psycopg.Error):
            wire.result(pgconn, pq.ExecStatus.COMMAND_OK)


def test_a_closed_connection(filled: Database, drain: Drain) -> None:
    connection = filled.connect()
    connection.close()
    with pytest.raises(ValueError, match="closed"):
        drain(connection.pgconn.pgconn_ptr, max_bytes=1, framed=False, wait_seconds=0)
