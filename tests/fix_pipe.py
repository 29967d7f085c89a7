"""Whole pipes under test: ``penstock`` as a subprocess between a real PostgreSQL and a real ClickHouse."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from penstock.control import queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fix_postgres import Database
    from tests.servers.clickhouse import ClickHouseServer

WAIT_SECONDS = 60.0
QUICK = 'flush_interval = "50ms"'
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}


@dataclass
class Case:
    """A pipe called ``shop`` with a home of its own."""

    folder: Path
    database: Database
    destination: str
    server: ClickHouseServer | None = None
    source_dsn: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    prefix: list[str] = field(default_factory=list)  # what stands before the command of a running pipe
    process: subprocess.Popen[str] | None = None  # the running pipe
    name: str = "shop"

    @property
    def home(self) -> Path:
        return Path(self.environment.get("PENSTOCK_HOME") or self.folder / "home")

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.toml"

    def define(
        self, tables: str = "", settings: str = "", source: str = "", destination: str = "", options: str = ""
    ) -> None:
        """Write the definition; every argument is TOML that goes into its section."""
        self.file.write_text(
            f'[pipe]\nname = "{self.name}"\n'
            f"[source]\ndsn = {json.dumps(self.source_dsn or self.database.dsn)}\n{source}\n"
            f"[destination]\ndsn = {json.dumps(self.destination)}\n{destination}\n"
            f"[tables]\n{tables}\n{options}\n[settings]\n{settings}\n"
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "penstock", *words]

    def _environment(self, failpoint: str = "") -> dict[str, str]:
        return {**os.environ, "PENSTOCK_HOME": str(self.home), "PENSTOCK_FAILPOINT": failpoint, **self.environment}

    def penstock(self, *words: str, timeout: float = 120, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*words),
            env=self._environment(failpoint),
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def once(self, *, failpoint: str = "", expect: int = 0) -> subprocess.CompletedProcess[str]:
        """``run --once``, with the exit code that is expected."""
        done = self.penstock("run", str(self.file), "--once", failpoint=failpoint)
        assert done.returncode == expect, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def status(self) -> dict[str, Any]:
        """What ``penstock status`` says of a pipe that has run."""
        found: dict[str, Any] = json.loads(self.penstock("status", str(self.file), "--json").stdout)
        return found

    def counted(self) -> dict[str, Counter[str]]:
        """What is counted so far, by table."""
        done = self.penstock("status", str(self.file), "--json")
        tables = json.loads(done.stdout)["tables"] if done.returncode != 2 else []  # 2: it has not run yet
        return {table["full_name"]: Counter(table["counters"]) for table in tables}

    @contextmanager
    def started(self, command: list[str], *, failpoint: str = "") -> Iterator[subprocess.Popen[str]]:
        """A command in the background, which writes into the log; killed when it is still there at the end of the context."""
        with (self.folder / "run.log").open("a") as out:
            process = subprocess.Popen(
                [*self.prefix, *command], env=self._environment(failpoint), stdout=out, stderr=out, text=True
            )
        self.process = process
        try:
            yield process
        except BaseException:
            print(self.log()[-6000:])
            raise
        finally:
            self.process = None
            if process.poll() is None:
                process.kill()
                process.wait()

    @contextmanager
    def running(self, *, failpoint: str = "", expect: int = 0) -> Iterator[subprocess.Popen[str]]:
        """``run`` in the background; ended by SIGTERM, with the exit code that is expected (1: a table is set aside)."""
        before = len(self.log())
        with self.started(self.command("run", str(self.file)), failpoint=failpoint) as process:
            self.wait_until(lambda: "stream open" in self.log()[before:], "the stream is open")
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(12) == expect, self.log()[-4000:]

    def log(self) -> str:
        path = self.folder / "run.log"
        return path.read_text() if path.exists() else ""

    # The destination

    def query(self, question: str) -> list[list[str | None]]:
        """Rows as texts, from the running process, the server, or the files of an embedded ClickHouse."""
        if self.server is not None:
            text = self.server.query(f"{question} format TSV", database="shop")
        else:
            answer = queries.ask(self.home, self.name, question, "TSV")
            if answer is None:
                done = self.penstock("query", str(self.file), question, "--format", "TSV")
                assert done.returncode == 0, done.stderr
                text = done.stdout
            else:
                text = answer.decode(errors="surrogateescape")
        return [[_unescape(each) for each in line.split("\t")] for line in text.removesuffix("\n").split("\n") if text]

    def wait_for(self, sql: str, wanted: Any, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the first value of the query is ``wanted``."""
        self.wait_until(
            lambda: self._first(sql) == str(wanted), f"{sql} is {wanted}", seconds, lambda: self._first(sql)
        )

    def _first(self, sql: str) -> str | None:
        try:
            rows = self.query(sql)
        except Exception as error:  # the table may not be there yet
            return f"({type(error).__name__}: {error})"
        return rows[0][0] if rows else None

    def wait_until(
        self,
        condition: Callable[[], bool],
        what: str,
        seconds: float = WAIT_SECONDS,
        seen: Callable[[], object] = lambda: "",
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process is None or self.process.poll() is None, f"the pipe ended before {what}"
            assert time.monotonic() < deadline, f"after {seconds} s it is not true that {what}; seen: {seen()}"
            time.sleep(0.02)

    # Both ends

    def differences(self, table: str | tuple[str, str], target: str = "", view: str = "") -> list[str]:
        """Rows that differ between ``schema.table`` and its current view, as texts; empty when both are equal.

        A tuple names schema and table where one of them has a dot.
        """
        schema, _, name = table.partition(".") if isinstance(table, str) else (table[0], ".", table[1])
        columns = self.database.fetch(
            "select a.attname, coalesce(nullif(t.typbasetype, 0), t.oid)::regtype::text from pg_attribute a"
            " join pg_type t on t.oid = a.atttypid where a.attrelid = %s::regclass and a.attnum > 0"
            " and not a.attisdropped and a.attgenerated = '' order by a.attnum",
            sql.Identifier(schema, name).as_string(),
        )
        theirs = self._source_rows(schema, name, [each for each, _ in columns])
        quoted = ", ".join(backticked(each) for each, _ in columns)
        ours = self.query(f"select {quoted} from {backticked(view or (target or name) + '_current')}")
        source = sorted(
            tuple(_normal(kind, value) for value, (_, kind) in zip(row, columns, strict=True)) for row in theirs
        )
        found = sorted(
            tuple(_normal(kind, value) for value, (_, kind) in zip(row, columns, strict=True)) for row in ours
        )
        if source == found:
            return []
        missing, extra = _without(source, found), _without(found, source)
        return [
            f"{len(source)} rows in the source, {len(found)} in the destination",
            *(f"missing {str(each)[:300]}" for each in missing[:5]),
            *(f"extra {str(each)[:300]}" for each in extra[:5]),
        ]

    def _source_rows(self, schema: str, name: str, columns: list[str]) -> list[list[str | None]]:
        """Rows as PostgreSQL prints them."""
        settings = "-c IntervalStyle=iso_8601 -c TimeZone=UTC -c extra_float_digits=3"
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("copy (select {} from {}) to stdout").format(names, sql.Identifier(schema, name))
        with self.database.connect(options=settings) as connection, connection.cursor().copy(statement) as lines:
            texts = [bytes(line).decode(errors="surrogateescape").removesuffix("\n") for line in lines]
        return [[_unescape(each) for each in line.split("\t")] for line in texts]

    def wait_until_equal(self, *tables: str) -> None:
        """A row that was committed last may come with the copy, before others that come with the stream."""

        def differences() -> list[str]:
            try:
                return [each for table in tables for each in self.differences(table)]
            except RuntimeError as error:  # a table or column is not there yet
                return [str(error)]

        self.wait_until(lambda: not differences(), "both ends are equal", seen=differences)

    def assert_equal(self, *tables: str) -> None:
        for table in tables:
            found = self.differences(table)
            if found:
                pytest.fail(f"{table}: " + "\n  ".join(found))


def streaming(case: Case, tables: int = 1) -> None:
    """Wait until so many tables stream."""
    case.wait_until(lambda: case.log().count("table streaming") >= tables, "the tables stream")


def backticked(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _without(rows: list[Any], others: list[Any]) -> list[Any]:

    return list((Counter(rows) - Counter(others)).elements())


def _normal(kind: str, value: str | None) -> str:
    """One text form for both sides. NULL is told apart from every text."""
    if value is None:
        return "[]" if kind.endswith("[]") else "\0NULL"  # ClickHouse has no arrays that are NULL
    if kind.endswith("[]"):
        return _array(kind[:-2], value)
    if kind == "boolean":
        return {"t": "true", "f": "false"}.get(value, value)
    if kind == "numeric":
        return str(Decimal(value).normalize() + 0) if value != "NaN" else value
    if kind in ("real", "double precision"):
        return repr(float(value))
    if kind.startswith("timestamp"):
        text = re.sub(r"[+-]\d\d(:\d\d)?$", "", value)
        return text.rstrip("0").rstrip(".") if "." in text else text
    if kind.startswith("time without"):
        return value.rstrip("0").rstrip(".") if "." in value else value
    if kind == "bytea" and not value.startswith("\\x"):
        return "\\x" + value.encode(errors="surrogateescape").hex()
    return value


def _array(kind: str, text: str) -> str:
    """``{a,"b c",NULL}`` and ``['a','b c',NULL]`` in one form."""

    def element(found: re.Match[str]) -> str:
        token = found[0]
        if token in "{}[]":
            return {"{": "[", "}": "]"}.get(token, token)
        if token == "NULL":
            return _normal(kind, None)
        return repr(_normal(kind, re.sub(r"\\(.)", r"\1", token[1:-1]) if token[0] in "\"'" else token))

    return re.sub(r"""[{}\[\]]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^,{}\[\]]+""", element, text)


def _unescape(text: str) -> str | None:
    if text == "\\N":
        return None
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text) if "\\" in text else text


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of what runs into both kinds of ClickHouse only the main job does so every day."""
    for item in items:
        chosen = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if chosen.get("case") == "embedded" and item.name.split("[")[0] != "test_copy_insert_update_delete":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["embedded", "served"])
def case(request: pytest.FixtureRequest, database: Database) -> Case:
    """A pipe into an embedded ClickHouse, and the same into a server."""
    chosen: Case = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def served(clickhouse_server: ClickHouseServer, database: Database, tmp_path: Path) -> Iterator[Case]:
    """A pipe into a server: quick to start and to ask."""
    clickhouse_server.query("drop database if exists shop sync")
    yield Case(tmp_path, database, clickhouse_server.dsn(), clickhouse_server)
    clickhouse_server.query("drop database if exists shop sync")


@pytest.fixture
def embedded(database: Database, tmp_path: Path) -> Case:
    """A pipe into an embedded ClickHouse."""
    return Case(tmp_path, database, f"chdb://{tmp_path}/chdb")
