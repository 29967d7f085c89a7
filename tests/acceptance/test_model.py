"""Random work on a source, its definitions included, in concurrent transactions, while the pipe is killed and started: at rest both
ends are equal, row by row and column by column.

``PENSTOCK_TEST_SECONDS=3600`` searches for an hour, each time elsewhere; ``PENSTOCK_TEST_SEED`` where something was found.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from psycopg import sql
from tests import histories
from tests.fix_pipe import Case
from tests.fix_postgres import drop_slot
from tests.sessions import SESSIONS, Source

from penstock.pipeline.failpoint import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fix_postgres import Database
    from tests.servers.clickhouse import ClickHouseServer


SECONDS = float(os.environ.get("PENSTOCK_TEST_SECONDS", "0"))
SEED = int(os.environ.get("PENSTOCK_TEST_SEED", "0"))
REST_SECONDS = 90.0
MOST_TABLES, MOST_COLUMNS = 5, 9
LEAST_BETWEEN_RESTS = 15  # statements

TYPES: dict[str, Callable[[int], str]] = {
    "int4": lambda n: str(n % 100_000),
    "int8": lambda n: str(n * 100_003),
    "int2": lambda n: str(n % 30_000 - 15_000),
    "text": lambda n: f"'t{n}'" if n % 4 else f"repeat('long{n}', {700 + n % 50})",
    "varchar(40)": lambda n: f"'v''\\{n}'",
    "numeric(12,2)": lambda n: f"{n % 1000}.{n % 100:02}",
    "numeric(20,4)": lambda n: f"-{n}.0{n % 10}",
    "float4": lambda n: f"{n % 1000}.5",
    "float8": lambda n: f"{n}.125",
    "bool": lambda n: str(n % 2 == 0),
    "date": lambda n: f"date '2000-01-01' + {n % 20_000}",
    "timestamp": lambda n: f"timestamp '2001-02-03 04:05:06.000007' + {n} * interval '1 min'",
    "timestamptz": lambda n: f"timestamptz '2001-02-03 04:05:06.000007+00' + {n} * interval '1 min'",
    "uuid": lambda n: f"md5('{n}')::uuid",
    "int4[]": lambda n: f"array[{n % 1000}, null, {-n}]" if n % 3 else "'{}'",
}
WIDER = {
    "smallint": ("int4", "int8"),
    "integer": ("int8", "text"),
    "bigint": ("text",),
    "real": ("float8",),
    "numeric(12,2)": ("numeric(20,4)",),
    "character varying(40)": ("text", "varchar(80)"),
    "timestamp without time zone": ("timestamptz",),
    "text": ("varchar(4000)",),
    "integer[]": ("int8[]",),
}
DEFAULTS = {
    "int4": ("7", "(random() * 1000)::int"),
    "text": ("'it''s \\ here'", "md5(random()::text)"),
    "timestamptz": ("'2020-02-03 04:05:06.789+00'", "now()", "clock_timestamp()"),
    "numeric(12,2)": ("1.50",),
    "bool": ("true",),
}
BY_NAME = {
    "integer": "int4",
    "bigint": "int8",
    "smallint": "int2",
    "character varying(40)": "varchar(40)",
    "character varying(80)": "varchar(40)",
    "character varying(4000)": "varchar(40)",
    "real": "float4",
    "double precision": "float8",
    "boolean": "bool",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "integer[]": "int4[]",
    "bigint[]": "int4[]",
}

_numbers = itertools.count(1)
numbers = st.integers(0, 1_000_000)
sessions = st.integers(0, SESSIONS - 1)


class Machine(RuleBasedStateMachine):
    """The source, the pipe, and what is done to them."""

    def __init__(self, database: Database, server: ClickHouseServer, folder: Path) -> None:
        super().__init__()
        self.database, self.server = database, server
        self.source = Source(database)
        home = folder / f"{next(_numbers)}"
        home.mkdir()
        self.case = Case(home, database, server.dsn(), server)
        self.stack = contextlib.ExitStack()
        self.process: Any = None
        self.failing = False
        self.heard = 0  # of the log, before the process was started
        self.keys = itertools.count(1)
        self.since_rest = 0

    def teardown(self) -> None:
        try:
            if self.since_rest and sys.exc_info()[0] is None:
                self.come_to_rest()
        finally:
            self.clean()

    def clean(self) -> None:
        self.stack.close()
        self.source.close()
        with self.database.connect() as connection:
            for (slot,) in connection.execute(
                "select slot_name from pg_replication_slots where database = current_database()"
            ).fetchall():
                drop_slot(connection, slot)
            for (name,) in connection.execute("select pubname from pg_publication").fetchall():
                connection.execute(sql.SQL("drop publication {}").format(sql.Identifier(name)))
            connection.execute("drop schema public cascade")
            for statement in ("drop schema if exists other cascade", *histories.CLEAN):
                connection.execute(statement)  # type: ignore[call-overload]
            connection.execute("create schema public")
        self.server.query("drop database if exists shop sync")

    # The pipe

    @initialize(
        flush=st.sampled_from(("10ms", "200ms")),
        rows=st.sampled_from((1, 7, 10_000)),
        part=st.sampled_from((3, 50, 100_000)),
        dropping=st.sampled_from(("keep", "drop")),
    )
    def begin(self, flush: str, rows: int, part: int, dropping: str) -> None:
        self.case.define(
            tables='include = ["public.*", "other.*", "past.*"]\ntarget = "{schema}_{table}"',
            options=histories.OPTIONS,
            settings=f'flush_interval = "{flush}"\nmax_batch_rows = {rows}\ncopy_part_rows = {part}\n'
            f'on_type_change = "resync"\non_drop_column = "{dropping}"',
        )
        self.database.execute("create schema other", "create table kept (id int primary key)", *histories.AUDITED)
        for number in range(2):
            self.create(0, number, 3 + number)
            self.insert(0, number, 40)
        self.start("", 0)

    @precondition(lambda self: self.process is None)
    @rule(place=st.sampled_from(("", *PLACES)), visit=st.integers(1, 4))
    def start(self, place: str, visit: int) -> None:
        point = f"{place}:{visit}" if place else ""
        self.failing = bool(point)
        self.heard = len(self.case.log())
        self.process = self.stack.enter_context(
            self.case.started(self.case.command("run", str(self.case.file)), failpoint=point)
        )

    @precondition(lambda self: self.process is not None)
    @rule(hard=st.booleans())
    def stop(self, hard: bool) -> None:
        self.end(kill=hard)

    def end(self, *, kill: bool) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        ended = process.poll()
        kill = kill or len(self.case.log()) == self.heard  # it has hardly begun, and knows nothing of signals yet
        if ended is None:
            (process.kill if kill else process.terminate)()
            ended = process.wait(20)
        self.stack.close()
        allowed = {-9} if kill else {0, 1}  # 1: a table was dropped
        if self.failing:
            allowed |= {-9}
        assert ended in allowed, self.story(f"the pipe ended with {ended}")

    @rule(milliseconds=st.sampled_from((20, 100, 400, 1000)))
    def wait(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)  # it is the length that is tried, not an event

    @precondition(lambda self: self.since_rest > LEAST_BETWEEN_RESTS)
    @rule(running=st.booleans())
    def rest(self, running: bool) -> None:
        self.come_to_rest(running=running)

    def come_to_rest(self, *, running: bool = False) -> None:
        """Everything is committed and has arrived."""
        self.since_rest = 0
        for session in range(SESSIONS):
            self.source.transaction(session, "commit")
        if running and self.process is not None and self.process.poll() is None and not self.failing:
            self.case.wait_until(
                lambda: not self.differences(),
                "both ends are equal",
                REST_SECONDS,
                lambda: self.story(*self.differences()),
            )
            return
        self.end(kill=True)
        for _ in range(
            3
        ):  # a name that was taken may be free by the next time; a table that was dropped is set aside once
            done = self.once()
            found = self.differences()
            if done.returncode == 0 and not any("UNKNOWN_TABLE" in each for each in found):
                break
        assert done.returncode == 0, self.story(str(done))
        assert not found, self.story(str(done), *found)

    def once(self) -> subprocess.CompletedProcess[str]:
        try:
            return self.case.penstock("run", str(self.case.file), "--once")
        except subprocess.TimeoutExpired as error:
            raise AssertionError(self.story(f"it does not end: {error.stderr}")) from None

    def story(self, *more: str) -> str:
        """What happened."""
        return "\n".join([*more, *self.source.did[-60:], self.case.log()[-6000:]])

    def differences(self) -> list[str]:
        found = []
        for schema, table in self.database.fetch(
            "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind in ('r', 'p') and not c.relispartition and n.nspname in ('public', 'other')"
        ):
            try:
                found += self.case.differences((schema, table), target=f"{schema}_{table}")
            except Exception as error:  # a table or column is not there yet
                found.append(f"{schema}.{table}: {type(error).__name__}: {error}"[:500])
        return found + histories.differences(self.case)

    # Transactions

    def run(self, session: int, *statements: str) -> None:
        self.since_rest += self.source.run(session, *statements)

    @rule(session=sessions, word=st.sampled_from(("begin", "begin", "commit", "commit", "rollback")))
    def transaction(self, session: int, word: str) -> None:
        self.source.transaction(session, word)

    # Rows

    def _chosen(self, session: int, table: int, *, kept: bool = True) -> tuple[str, list[tuple[str, str]]] | None:
        tables = self.source.tables(session, histories=kept)
        if not tables:
            return None
        oid, name = tables[table % len(tables)]
        return name, self.source.columns(session, oid)

    @rule(session=sessions, table=numbers, count=st.sampled_from((1, 3, 40)))
    def insert(self, session: int, table: int, count: int) -> None:
        if chosen := self._chosen(session, table):
            name, columns = chosen
            rows = []
            for _ in range(count):
                key = next(self.keys)
                values = [_value(type_, key + place) for place, (_, type_) in enumerate(columns)]
                rows.append(f"({', '.join([str(key), str(key % 3), *values])})")
            names = ", ".join(["id", "part", *(each for each, _ in columns)])
            self.run(session, f"insert into {name} ({names}) values {', '.join(rows)}")

    @rule(session=sessions, table=numbers, number=numbers, width=st.sampled_from((1, 5, 1000)))
    def update(self, session: int, table: int, number: int, width: int) -> None:
        chosen = self._chosen(session, table)
        if chosen and chosen[1]:
            name, columns = chosen
            column, type_ = columns[number % len(columns)]
            low = number % next(self.keys)
            self.run(
                session,
                f"update {name} set {column} = {_value(type_, number)} where id between {low} and {low + width}",
            )

    @rule(
        session=sessions,
        table=numbers,
        number=numbers,
        shift=st.sampled_from(("id = -id", "id = id + 1", "part = part + 1")),
    )
    def move(self, session: int, table: int, number: int, shift: str) -> None:
        if chosen := self._chosen(session, table):
            low = number % next(self.keys)
            self.run(session, f"update {chosen[0]} set {shift} where id between {low} and {low + 5}")

    @rule(session=sessions, table=numbers, number=numbers, width=st.sampled_from((1, 5, 1000)))
    def rewrite(self, session: int, table: int, number: int, width: int) -> None:
        """In a history: a value that is stored out of line."""
        low, name = number % next(self.keys), histories.TABLES[table % len(histories.TABLES)]
        change = histories.SET_BIG if number % 2 else "part = part + 1"
        self.run(session, f"update past.{name} set {change} where id between {low} and {low + width}")

    @rule(session=sessions, table=numbers, number=numbers)
    def delete(self, session: int, table: int, number: int) -> None:
        if chosen := self._chosen(session, table):
            self.run(session, f"delete from {chosen[0]} where id % 7 = {number % 7}")

    @rule(session=sessions, table=numbers)
    def truncate(self, session: int, table: int) -> None:
        if chosen := self._chosen(session, table):
            self.run(session, f"truncate {chosen[0]}")

    # Definitions

    @rule(session=sessions, number=numbers, width=st.integers(1, 4))
    def create(self, session: int, number: int, width: int) -> None:
        if len(self.source.tables(session)) >= MOST_TABLES:
            return
        kinds = list(TYPES)
        columns = ", ".join(f"c{place} {kinds[(number + place * 5) % len(kinds)]}" for place in range(width))
        name = f"{'other' if number % 5 == 4 else 'public'}.t{number % 4}"
        keyless = number % 3 == 2
        key = "" if keyless else ", primary key (id)" if number % 2 else ", primary key (part, id)"
        self.run(
            session,
            f"create table {name} (id int not null, part int not null, {columns}{key})",
            *([f"alter table {name} replica identity full"] if keyless else []),
            *_out_of_line(name, columns),
        )

    @rule(session=sessions, number=numbers, width=st.integers(1, 3))
    def create_partitioned(self, session: int, number: int, width: int) -> None:
        if len(self.source.tables(session)) >= MOST_TABLES:
            return
        kinds = list(TYPES)
        columns = ", ".join(f"c{place} {kinds[(number + place * 3) % len(kinds)]}" for place in range(width))
        name = f"public.t{number % 4}"
        by = "part" if number % 2 else "id"
        parts = (
            [f"for values in ({each})" for each in range(2)] if by == "part" else ["for values from (-1000) to (100)"]
        )
        leaves = [
            f"create table {name}_p{next(self.keys)} partition of {name} {bounds}" for bounds in [*parts, "default"]
        ]
        key = f"(id int not null, part int not null, {columns}, primary key (part, id))"
        self.run(
            session,
            f"create table {name} {key} partition by {'list' if by == 'part' else 'range'} ({by})",
            *_out_of_line(name, columns),
            *leaves,
        )

    @rule(
        session=sessions, table=numbers, number=numbers, what=st.sampled_from(("detach", "drop", "truncate", "insert"))
    )
    def leaf(self, session: int, table: int, number: int, what: str) -> None:
        roots = self.source.tables(session, partitioned=True)
        leaves = self.source.leaves(session, roots[table % len(roots)][0]) if roots else []
        if not leaves:
            return
        root, leaf = roots[table % len(roots)][1], leaves[number % len(leaves)]
        key = next(self.keys)
        statements = {
            "detach": f"alter table {root} detach partition {leaf}",
            "drop": f"drop table {leaf}",
            "truncate": f"truncate {leaf}",
            "insert": f"insert into {leaf} (id, part) values ({key}, {key % 3})",
        }
        self.run(session, statements[what])

    @rule(session=sessions, table=numbers, number=numbers)
    def attach(self, session: int, table: int, number: int) -> None:
        """What fits, which is seldom but after a detachment."""
        roots = self.source.tables(session, partitioned=True)
        loose = [name for _, name in self.source.tables(session) if "_p" in name]
        if roots and loose:
            root, leaf = roots[table % len(roots)][1], loose[number % len(loose)]
            bounds = ("in (0)", "in (1)", "from (-1000) to (100)", "from (100) to (200)")[number % 4]
            self.run(session, f"alter table {root} attach partition {leaf} for values {bounds}")

    @rule(session=sessions, table=numbers, kind=st.sampled_from(tuple(TYPES)), number=numbers)
    def add_column(self, session: int, table: int, kind: str, number: int) -> None:
        chosen = self._chosen(session, table)
        if chosen and len(chosen[1]) < MOST_COLUMNS:
            defaults = DEFAULTS.get(kind, ())
            default = f" default {defaults[number % len(defaults)]}" if defaults and number % 2 else ""
            null = " not null" if default and number % 4 == 3 else ""
            column = f"c{number % 12} {kind}"
            self.run(
                session,
                f"alter table {chosen[0]} add column {column}{default}{null}",
                *_out_of_line(chosen[0], column),
            )

    @rule(session=sessions, table=numbers, number=numbers, again=st.booleans())
    def drop_column(self, session: int, table: int, number: int, again: bool) -> None:
        chosen = self._chosen(session, table)
        if chosen and chosen[1]:
            name, columns = chosen
            column, _ = columns[number % len(columns)]
            kind = list(TYPES)[number % len(TYPES)]
            more = [f"alter table {name} add column {column} {kind}"] if again else []
            self.run(session, f"alter table {name} drop column {column}", *more)

    @rule(session=sessions, table=numbers, number=numbers)
    def rename_column(self, session: int, table: int, number: int) -> None:
        chosen = self._chosen(session, table)
        if chosen and chosen[1]:
            column, _ = chosen[1][number % len(chosen[1])]
            self.run(session, f"alter table {chosen[0]} rename column {column} to c{number % 12}")

    @rule(session=sessions, table=numbers, number=numbers)
    def retype_column(self, session: int, table: int, number: int) -> None:
        chosen = self._chosen(session, table)
        if chosen and chosen[1]:
            column, type_ = chosen[1][number % len(chosen[1])]
            if wider := WIDER.get(type_):
                self.run(session, f"alter table {chosen[0]} alter column {column} type {wider[number % len(wider)]}")

    @rule(session=sessions, table=numbers, number=numbers)
    def rename_table(self, session: int, table: int, number: int) -> None:
        if chosen := self._chosen(session, table, kept=False):
            if number % 3:
                self.run(session, f"alter table {chosen[0]} rename to t{number % 4}")
            else:
                schema = "public" if chosen[0].startswith("other") else "other"
                self.run(session, f"alter table {chosen[0]} set schema {schema}")

    @rule(session=sessions, table=numbers, again=st.booleans())
    def drop_table(self, session: int, table: int, again: bool) -> None:
        if chosen := self._chosen(session, table, kept=False):
            made = (
                f"create table {chosen[0]} (id int not null, part int not null, c1 text, primary key (part, id))",
                f"insert into {chosen[0]} values (1, 1, 'new')",
            )
            self.run(session, f"drop table {chosen[0]}", *(made if again else ()))


def _out_of_line(name: str, columns: str) -> list[str]:
    """Long texts are not compressed: an UPDATE leaves them out."""
    texts = [each.split()[0] for each in columns.split(", ") if each.endswith(" text")]
    return [f"alter table {name} alter column {each} set storage external" for each in texts]


def _value(type_: str, number: int) -> str:
    if number % 11 == 0:
        return "null"
    kind = type_ if type_ in TYPES else BY_NAME.get(type_, "")
    return f"({TYPES[kind](number)})::{type_}" if kind else "null"


def search(machine: Callable[[], Machine], *, examples: int, steps: int, start: int | None) -> None:
    """Look for a sequence that ends in a difference."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=start is None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),  # the same steps need not end in the same way: they cannot be made fewer
        print_blob=False,
    )
    run_state_machine_as_test(machine if start is None else seed(start)(machine), settings=chosen)


@pytest.fixture
def machine(database: Database, clickhouse_server: ClickHouseServer, tmp_path: Path) -> Callable[[], Machine]:
    clickhouse_server.query("drop database if exists shop sync")
    return lambda: Machine(database, clickhouse_server, tmp_path)


@pytest.mark.pg("== 15")
def test_random_work(machine: Callable[[], Machine]) -> None:
    search(machine, examples=2, steps=80, start=22)


@pytest.mark.slow
@pytest.mark.pg("!= 15")
def test_more_random_work(machine: Callable[[], Machine]) -> None:
    end, start = time.monotonic() + SECONDS, SEED or (time.time_ns() % 1_000_000 if SECONDS else 1)
    while True:
        print(f"seed {start}")
        search(machine, examples=2, steps=100, start=start)
        start += 1
        if time.monotonic() > end:
            return
