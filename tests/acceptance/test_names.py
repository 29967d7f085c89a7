"""Names that need care: whatever PostgreSQL allows as a name arrives, or is refused with the setting that solves it."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
from psycopg import sql
from tests.fix_pipe import backticked
from tests.fix_postgres import Database, drop_database

from penstock.errors import PenstockError

if TYPE_CHECKING:
    from tests.fix_pipe import Case

NAMES = (
    "dotted.name.",
    'double"quotes"',
    "single'quote",
    "back`ticks`",
    "back\\slash\\",
    " spaces around ",
    "per%cent %s %(x)s",
    "{table}",
    "{schema}",
    "{braces:String}",
    "emoji 🦫",
    "Кириллица",
    "日本語",
    "UPPER",
    "upper",
    "select",
    "from",
    "123",
    "new\nline",
    "tab\tand\rreturn",
    "x" * 63,
    "語" * 21,
    "$1",
    "?",
    "[a-z]*",
    "-- comment",
    "/* comment",
    ";drop",
    "null",
    "t",
    "t.newest",
    "x_current",
    "key_0",
    "value_0",
    "column_2",
    "newest",
    "place",
    "version",
    "deleted",
    "wanted",
    "found",
    "text",
    "texts",
    "body",
    "body.part",
)
TABLES = NAMES.index("key_0")
"""The names from here on are those of Penstock's own queries: they matter for columns."""
BODY = "(select string_agg(md5(i::text || j::text), '') from generate_series(1, 80) j)"
"""A value that is stored out of line."""


def name_of(place: int) -> str:
    return NAMES[place % len(NAMES)]


class Tables:
    """A table for each name, which has the names after it for its columns and some of them for its schema; and one with all as columns."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.schemas = [
            name_of(place + 4) if place % 3 == 0 and len(name) < 20 else "public"
            for place, name in enumerate(NAMES[:TABLES])
        ]

    def do(self, *statements: str, step: int = 1) -> None:
        """Statements with {table}, and {key}, {body}, {n} for its columns, for each table."""
        with self.case.database.connect() as connection:
            for place, schema in list(enumerate(self.schemas))[::step]:
                table = sql.Identifier(schema, name_of(place))
                columns = {"key": place + 1, "body": place + 2, "n": place + 3}
                named = {column: sql.Identifier(name_of(each)) for column, each in columns.items()}
                for each in statements:
                    connection.execute(sql.SQL(each).format(table=table, **named))  # type: ignore[arg-type]

    def every(self, *statements: str) -> None:
        """Statements for the table with all columns; {k} and {l} are its key."""
        with self.case.database.connect() as connection:
            for each in statements:
                named = {"k": "t", "l": "{table}", "v": "version", "w": "found"}
                identifiers = {name: sql.Identifier(column) for name, column in named.items()}
                columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in NAMES)
                alterations = sql.SQL(", ").join(
                    sql.SQL("alter {} set storage external").format(sql.Identifier(name)) for name in NAMES
                )
                connection.execute(sql.SQL(each).format(columns=columns, alterations=alterations, **identifiers))  # type: ignore[arg-type]

    def make(self) -> None:
        with self.case.database.connect() as connection:
            for schema in {*self.schemas} - {"public"}:
                connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
        self.do(
            "create table {table} ({key} text, {body} text, {n} int, primary key ({key}))",
            "alter table {table} alter {body} set storage external",
            f"insert into {{table}} select 'k' || i, {BODY}, i from generate_series(1, 5) i",
        )
        self.every(
            "create table every ({columns}, primary key ({k}, {l}))",
            "alter table every {alterations}",
            f"insert into every ({{k}}, {{l}}, {{v}}, {{w}}) select 'k' || i, i, {BODY}, {BODY} from generate_series(1, 5) i",
        )

    def change(self) -> None:
        """Inserts, updates that leave out unchanged values, changes of the key and deletes."""
        self.do(
            "insert into {table} select 'k6', repeat('six', 900), 6",
            "update {table} set {n} = 10 where {key} = 'k1'",
            "update {table} set {key} = 'moved' where {key} = 'k2'",
            "delete from {table} where {key} = 'k3'",
        )
        self.every(
            "update every set {w} = 'changed' where {k} = 'k1'",
            "update every set {k} = 'moved', {w} = null where {k} = 'k2'",
            "update every set {l} = 'moved' where {k} = 'k4'",
            "delete from every where {k} = 'k3'",
        )

    def names(self) -> list[tuple[str, str]]:
        return [*zip(self.schemas, NAMES, strict=False), ("public", "every")]

    def wait_until_equal(self) -> None:
        for each in self.names():
            equal, seen = partial(self.is_equal, *each), partial(self.differences, *each)
            self.case.wait_until(equal, f"{each} is equal", seen=seen)

    def is_equal(self, schema: str, name: str) -> bool:
        return not self.differences(schema, name)

    def differences(self, schema: str, name: str) -> list[str]:
        try:
            return self.case.differences((schema, name), f"{schema}:{name}")
        except (RuntimeError, PenstockError) as error:  # the view may not be there yet
            return [str(error)]


@pytest.mark.pg("== 15")
def test_every_name_arrives(case: Case) -> None:
    tables = Tables(case)
    tables.make()
    case.define(tables='include = ["*"]\ntarget = "{schema}:{table}"')
    with case.running():
        tables.wait_until_equal()
        tables.change()
        tables.wait_until_equal()
        tables.do(
            "truncate {table}", f"insert into {{table}} select 'k1', {BODY}, 1 from generate_series(1, 1) i", step=4
        )
        tables.every("truncate every")
        tables.wait_until_equal()
    checked = case.penstock("check", str(case.file), "--json")
    assert checked.returncode == 0, checked.stdout
    again = [f"{schema}.{name}" for schema, name in tables.names()[::3]]
    done = case.penstock("resync", str(case.file), *again, "--json")
    assert json.loads(done.stdout) == {"resync": again, "by": "next run"}, done.stderr
    case.once()
    log = case.log()
    assert "Traceback" not in log
    assert "set aside" not in log
    assert all(line.startswith("timestamp=") for line in log.splitlines())
    if case.server:
        tables.wait_until_equal()
    done = case.penstock("drop", str(case.file), "--tables")
    assert done.returncode == 0, done.stderr
    assert case.query("select name from system.tables where database = 'shop'") == []
    assert case.database.fetch("select slot_name from pg_replication_slots where database = current_database()") == []


@pytest.mark.slow
@pytest.mark.pg("== 15")
def test_odd_names_in_the_definition(case: Case) -> None:
    """Columns that are excluded, sorted by and retyped; targets; the publication, both databases."""
    odd = 'od"d `db` 日本.%s\\'
    slot = f"penstock_test_{os.getpid()}"
    case.database.execute(sql.SQL("create database {}").format(sql.Identifier(odd)).as_string())
    database = Database(case.database.server, odd)
    try:
        case.database, case.source_dsn = database, database.dsn
        database.execute(
            'create schema "a.b"',
            f'create table "a.b"."[x]*" (id int primary key, {ODD} int not null, "sec.ret" text, "日本" int, body text)',
            'alter table "a.b"."[x]*" replica identity full, alter body set storage external',
            "insert into \"a.b\".\"[x]*\" values (1, 2, 'hidden', 3, repeat('b', 3000)), (2, 3, null, 4, null)",
            'create table "{schema}" ("%s" int primary key, "{y}" text, "日本" timestamp not null)',
            "insert into \"{schema}\" values (1, 'one', '2020-01-01'), (2, 'two', '2021-01-01')",
            sql.SQL("create publication {} for all tables").format(sql.Identifier(odd)).as_string(),
        )
        case.define(
            source=f'publication = {json.dumps(odd)}\nslot = "{slot}"',
            destination=f"database = {json.dumps(odd)}",
            tables='include = ["a.b.[x]*", "public.*"]\ntarget = "{table}"',
            options=OPTIONS,
        )
        case.once()
        database.execute(
            f'update "a.b"."[x]*" set {ODD} = 7, "日本" = null where id = 1',
            'update "a.b"."[x]*" set id = 5 where id = 2',
            'update "{schema}" set "{y}" = \'zwei\' where "%s" = 2',
        )
        case.once()
        ask = "select *, length(body), toTypeName(`日本`) from `[x]*_current` order by id"
        assert (
            told(case, ask)
            == "1\t7\t\\N\t%s\t3000\tNullable(String)\n" % ("b" * 3000) + "5\t3\t4\t\\N\t\\N\tNullable(String)\n"
        )
        assert told(
            case, "select `%s`, `{y}`, _operation from `the history's ``table``` final order by _version, 1"
        ) == ("1\tone\tcopy\n2\ttwo\tcopy\n2\tzwei\tupdate\n")
        sorting = "select sorting_key from system.tables where database = currentDatabase() and name = '[x]*'"
        assert told(case, sorting) == '`a "quoted" \\\\`name\\\\`.\\\\\\\\`, id\n'
        assert case.penstock("check", str(case.file)).returncode == 0
        assert case.penstock("drop", str(case.file), "--tables").returncode == 0
    finally:
        drop_database(database.server, odd)
        if case.server:
            case.server.query(f"drop database if exists {backticked(odd)} sync")


ODD = '"a ""quoted"" `name`.\\"'
OPTIONS = """
[tables.options."a.b.[x]*"]
exclude_columns = ["sec.ret"]
order_by = ["a \\"quoted\\" `name`.\\\\"]
types = { "日本" = "String" }
[tables.options."public.{schema}"]
shape = "history"
target = "the history's `table`"
partition_by = "toYear(`日本`)"
"""


def told(case: Case, question: str) -> str:
    done = case.penstock("query", str(case.file), question, "--format", "TSV")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.pg("== 15")
def test_names_that_clash_are_refused_with_the_setting_that_helps(embedded: Case) -> None:
    embedded.database.execute(
        "create schema a; create schema b",
        "create table a.t (id int primary key); create table b.t (id int primary key)",
        "create table a.x (id int primary key); create table a.x_current (id int primary key)",
        "create table a.meta (id int primary key, _version int, _is_deleted int, _synced_at int)",
        'create table a.parts (id int primary key, body text, "body.size" int)',
        'create table a.documents (id int primary key, doc json, "doc.x" int)',
        "insert into a.meta values (1, 2, 3, 4)",
        "insert into a.parts values (1, 'x', 2)",
    )

    def refused(tables: str, *words: str, command: str = "check", **sections: str) -> None:
        embedded.define(tables=tables, **sections)
        done = embedded.penstock(command, str(embedded.file))
        assert done.returncode in ((2,) if command == "run" else (2, 3)), done.stderr
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stdout + done.stderr

    refused('include = ["?.t"]', "a.t and b.t", 'target = "{schema}_{table}"')
    refused('include = ["?.t"]', "a.t and b.t", command="run")
    refused('include = ["a.x*"]', "a.x and a.x_current", '"x_current"', "views = false")
    refused('include = ["a.meta"]', '"_version"', "metadata_prefix")
    refused('include = ["a.parts"]', '"body.size"', "exclude_columns")
    refused('include = ["a.documents"]', '"doc.x"', "exclude_columns", settings='json = "json"')
    refused("", "source.slot", source='slot = "Odd-Slot"')
    refused("", "destination.metadata_prefix", destination='metadata_prefix = "1 x"')
    embedded.define(
        tables='include = ["?.t", "a.x*", "a.meta", "a.parts"]\ntarget = "{schema}_{table}"',
        destination='views = false\nmetadata_prefix = "_p_"',
        options='[tables.options."a.parts"]\nexclude_columns = ["body.size"]',
    )
    embedded.once()
    embedded.database.execute("update a.meta set _version = 5", "update a.parts set body = 'y'")
    embedded.once()
    asked = "select _version, _is_deleted, _synced_at, body from a_meta m final join a_parts p final using id where m._p_is_deleted = 0"
    assert embedded.query(asked) == [["5", "3", "4", "y"]]


@pytest.mark.pg("== 15")
def test_a_name_too_long_for_clickhouse_sets_its_table_aside(case: Case) -> None:
    long = "語" * 21
    case.database.execute(
        f'create schema "{long}"; create table "{long}"."{long}" (id int primary key); create table t (id int primary key)'
    )
    case.define(tables='include = ["*"]\ntarget = "{schema}_{table}"')
    done = case.once(expect=1)
    assert "target in [tables.options]" in done.stderr
    case.define(
        tables='include = ["*"]\ntarget = "{schema}_{table}"',
        options=f'[tables.options."{long}.{long}"]\ntarget = "{long}"',
    )
    assert case.penstock("resync", str(case.file), f"{long}.{long}").returncode == 0
    case.once()
    assert case.query(f"select count() from `{long}_current`") == [["0"]]
