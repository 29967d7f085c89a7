"""Sources in other encodings than UTF-8: every byte arrives, also in keys, in completed values and in names."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.fix_postgres import Database, drop_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from tests.fix_pipe import Case


@contextmanager
def encoded(case: Case, encoding: str) -> Iterator[psycopg.Connection]:
    """The case's source is a database of this encoding. What is executed as bytes is in it, byte by byte."""
    server, name = case.database.server, f"test_{encoding.lower()}_{os.getpid()}"
    case.database.execute(
        f"create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
    )
    case.database = Database(server, name)
    case.source_dsn = case.database.dsn
    try:
        with case.database.connect(client_encoding=encoding) as connection:
            yield connection
    finally:
        drop_database(server, name)


def stored(case: Case, question: str) -> list[tuple[str | None, ...]]:
    return [tuple(row) for row in case.query(question)]


def literal(value: bytes) -> bytes:
    return b"E'" + b"".join(b"\\x%02x" % byte for byte in value) + b"'"


KEYED = """
create table t (k text, name text, n int default 0, big text, primary key (k));
alter table t alter big set storage external
"""


def follow(case: Case, connection: psycopg.Connection, keys: list[bytes], decoded: list[bytes]) -> None:
    """Copy, insert, update with values left out, change of the key and delete, with ``keys`` as keys and values.

    ``decoded`` are the same as they should be in ClickHouse.
    """
    add = b"insert into t values (%s, %s, %d, repeat(%s, 4000))"
    connection.execute(KEYED)
    half = len(keys) // 2
    for number, key in enumerate(keys[:half]):
        connection.execute(add % (literal(key), literal(key), number, literal(key)))
    case.define()
    done = case.once()
    assert "Traceback" not in done.stderr
    for number, key in enumerate(keys[half:], start=half):
        connection.execute(add % (literal(key), literal(key), number, literal(key)))
    connection.execute("update t set n = n + 1000")
    first, last = literal(keys[0]), literal(keys[-1])
    connection.execute(b"update t set k = k || %s where k = %s" % (last, first))
    connection.execute(b"delete from t where k = %s" % last)
    done = case.once()
    assert "Traceback" not in done.stderr
    expected = {
        (key.hex(), name.hex(), str(n + 1000), (name * 4000).hex())
        for n, (key, name) in enumerate(zip([decoded[0] + decoded[-1], *decoded[1:-1]], decoded, strict=False))
    }
    hexed = "select lower(hex(k)), lower(hex(name)), n, lower(hex(big)) from t_current"
    assert set(stored(case, hexed)) == expected
    assert case.penstock("check", str(case.file)).returncode == 0


@pytest.mark.slow
@pytest.mark.pg("== 12")
def test_latin1(case: Case) -> None:
    with encoded(case, "LATIN1") as connection:
        keys = [*(bytes([byte]) for byte in range(0xA0, 0x100)), b"\x80", b"\x9f", b"plain", bytes(range(1, 256))]
        follow(case, connection, keys, [key.decode("latin-1").encode() for key in keys])


@pytest.mark.pg("== 15")
def test_euc_jp(case: Case) -> None:
    with encoded(case, "EUC_JP") as connection:
        texts = ["日本", "ひらがな", "カタカナ", "ｶﾅ", "plain", "漢字" * 200, "亜"]
        follow(case, connection, [text.encode("euc_jp") for text in texts], [text.encode() for text in texts])


@pytest.mark.slow
@pytest.mark.pg("== 18")
def test_sql_ascii(case: Case) -> None:
    """Bytes that are not UTF-8 arrive in values; a name that holds some refuses its table, and the others go on."""
    with encoded(case, "SQL_ASCII") as connection:
        connection.execute(
            b"""
            create table "caf\xe9" (id int primary key, big text);
            create table odd_column (id int primary key, "\xff" text);
            create schema "\xe9"; create table "\xe9".t (id int primary key);
            create publication everything for all tables
            """
        )
        connection.execute("""create table "имя" ("ключ" text primary key, n int, "日" text)""".encode())
        connection.execute("""alter table "имя" alter "日" set storage external""".encode())
        connection.execute("""insert into "имя" values (E'\\xe9', 0, repeat(E'\\xff', 3000))""".encode())
        case.define(tables='include = ["*.*"]', source='publication = "everything"')
        checked = case.penstock("check", str(case.file), "--json")
        assert checked.returncode == 3, checked.stderr
        told = [each for each in json.loads(checked.stdout) if each["check"] == "names"]
        assert {each["severity"] for each in told} == {"blocking"}
        assert {each["subject"] for each in told} == {"public.caf\udce9", "public.odd_column", "\udce9.t"}
        shown = case.penstock("check", str(case.file))
        assert "public.caf\\xe9: its name is not UTF-8" in shown.stdout, shown.stderr
        assert 'the name of column "\\xff" is not UTF-8' in shown.stdout
        done = case.once(expect=1)
        assert "table=public.caf\\xe9" in done.stderr
        assert "Traceback" not in done.stderr
        connection.execute(b"insert into \"caf\xe9\" values (1); insert into odd_column values (1, '\xff')")
        connection.execute("""update "имя" set n = 1""".encode())
        done = case.penstock("run", str(case.file), "--once", "--json")
        assert json.loads(done.stdout)["tables"][-1]["full_name"] == "\udce9.t", done.stdout
        assert stored(case, "select hex(`ключ`), n, hex(`日`) from `имя_current`") == [("E9", "1", "FF" * 3000)]
        for each in ("t", "odd_column"):
            connection.execute(f"drop table if exists {each}")
        connection.execute(b'drop table "caf\xe9", "\xe9".t')
        keys = [
            b"\xe9t\xe9",
            b"\xff\xfe",
            "日本".encode(),
            b"\x80" * 300,
            bytes(range(1, 256)),
            b"plain",
            b"\xc3",
            b"\xe9",
        ]
        assert case.penstock("drop", str(case.file), "--tables").returncode == 0
        follow(case, connection, keys, keys)


@pytest.mark.slow
@pytest.mark.pg("== 15")
def test_a_character_that_utf8_does_not_have_is_said(embedded: Case) -> None:
    """PostgreSQL itself cannot convert it. The copy sets the table aside; the stream, which all tables share, stops."""
    case = embedded
    with encoded(case, "EUC_JP") as connection:
        connection.execute("create table t (id int primary key, v text); create table u (id int primary key)")
        connection.execute(b"insert into t values (1, '\xa3\xa1'); insert into u values (1)")
        case.define()
        done = case.once(expect=1)
        assert "reading part 0 of public.t" in done.stderr
        assert "UTF-8 does not have" in done.stderr
        assert stored(case, "select id from u_current") == [("1",)]
        connection.execute("update t set v = 'changed'")
        assert case.penstock("resync", str(case.file), "public.t").returncode == 0
        case.once()
        assert stored(case, "select id, v from t_current") == [("1", "changed")]
        connection.execute(b"insert into t values (2, '\xa3\xa1')")
        done = case.once(expect=1)
        assert "error: streaming from slot" in done.stderr
        assert "UTF-8 does not have" in done.stderr
        assert "Traceback" not in done.stderr
