"""Random tables over all types, whose rows reach ClickHouse in four ways, each value by itself and as an element of an array.

Copied; copied, and then updated in another column, so that PostgreSQL leaves large values out; inserted; updated from another value.
Everything follows from the seed.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql
from tests import traces
from tests.culprit import cut, literal
from tests.plans import SERVER, pipe_of
from tests.sorts import SETUP, Sort, sorts

from penstock.config import Source
from penstock.plan import compile_plan
from penstock.postgres.catalog import read_tables
from penstock.postgres.connection import Connector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from tests.expected import Rules
    from tests.fix_pipe import Case
    from tests.fix_postgres import Database

WAYS = ("copied", "kept", "inserted", "updated")
STEP = 1000  # between the ids of two ways
TEXT_FORM = {
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "search_path": "",
}
"""Of PostgreSQL's text, as docs/types.md takes it."""
_FITS = """
create function public.fits(type text, value text) returns bool language plpgsql as $$
begin
  execute format('select cast(%L as %s)::text', value, type);
  return true;
exception when others then
  return false;
end $$"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column ``name`` of a type. ``source`` is the expression that fills it."""

    name: str
    sort: Sort
    source: str
    not_null: bool = False

    @property
    def definition(self) -> str:
        return f"{self.name} {self.sort.sql}{' not null' if self.not_null else ''}"


@dataclass(slots=True)
class Sample:
    """A table, with a value a row of each column that is not made of another."""

    name: str
    columns: list[Column]
    values: dict[str, list[str | None]]

    @property
    def rows(self) -> int:
        return len(next(iter(self.values.values())))

    def narrowed(self, names: Sequence[str], rows: Sequence[int]) -> Sample:
        """Only the columns that are made of these, and these rows."""
        columns = [each for each in self.columns if "c" + each.name[1:] in names]
        return Sample(self.name, columns, {name: [self.values[name][row] for row in rows] for name in names})

    def create(self, database: Database) -> None:
        """The table, and the one that its rows are taken from."""
        given = [column for column in self.columns if column.name in self.values]
        definitions = ", ".join(column.definition for column in self.columns)
        casts = ", ".join(f"cast(%s as {column.sort.sql.replace('%', '%%')})" for column in given)
        rows = list(zip(range(1, self.rows + 1), *(self.values[column.name] for column in given), strict=True))
        with database.connect() as connection:
            connection.execute(
                f"create table {self.name} (id int primary key, touched int, {definitions}) with (toast_tuple_target = 128)"  # type: ignore[call-overload]
            )
            connection.execute(
                f"create table staged.{self.name} (id int primary key, {', '.join(f'{column.name} {column.sort.sql}' for column in given)})"  # type: ignore[call-overload]
            )
            connection.cursor().executemany(f"insert into staged.{self.name} values (%s, {casts})", rows)  # type: ignore[arg-type]

    def fill(self, way: str, shifted: int = 0) -> str:
        """The statement that inserts the rows of one way; ``shifted``: each with the values of another row."""
        row = (
            f"(id + {shifted}) % {self.rows} + 1 + {WAYS.index(way) * STEP}"
            if shifted
            else f"id + {WAYS.index(way) * STEP}"
        )
        return f"insert into {self.name} select {row}, 0, {', '.join(each.source for each in self.columns)} from staged.{self.name}"

    def change(self) -> str:
        """The statement that gives the updated rows their own values."""
        assigned = ", ".join(f"{each.name} = new.{each.name}" for each in self.columns)
        made = ", ".join(f"{each.source} as {each.name}" for each in self.columns)
        return (
            f"update {self.name} set {assigned} from (select id, {made} from staged.{self.name}) new"
            f" where {self.name}.id = new.id + {WAYS.index('updated') * STEP}"
        )

    def touch(self) -> str:
        """The statement that updates a row and leaves its values alone."""
        first = WAYS.index("kept") * STEP
        return f"update {self.name} set touched = 1 where id between {first + 1} and {first + STEP - 1}"

    def printed(self, database: Database) -> Iterator[tuple[int, list[str | None]]]:
        """Each row's id, and its values as PostgreSQL prints them."""
        options = " ".join(f"-c {name}={value}" for name, value in TEXT_FORM.items())
        names = ", ".join(each.name for each in self.columns)
        with database.connect(options=options, client_encoding="UTF8") as connection:
            result = connection.pgconn.exec_(f"select id, {names} from public.{self.name} order by id".encode())
            for row in range(result.ntuples):
                number, *texts = (result.get_value(row, column) for column in range(len(self.columns) + 1))
                yield (
                    int(number or 0),
                    [None if text is None else text.decode(errors="surrogateescape") for text in texts],
                )


class Difference(NamedTuple):
    """One value that did not arrive as it should have."""

    sort: str
    way: str
    printed: str | None
    expected: str | None
    shown: str | None

    def __str__(self) -> str:
        return (
            f"{self.sort}, {self.way}:\n"
            f"  create table t (id int primary key, v {self.sort}); insert into t values (1, {cut(literal(self.printed))});\n"
            f"  expected {cut(ascii(self.expected))}\n  shown    {cut(ascii(self.shown))}"
        )


@dataclass(slots=True)
class Round:
    """All tables of one seed."""

    seed: int
    database: Database
    rows: int
    samples: list[Sample] = field(default_factory=list)

    def prepare(self) -> None:
        """Make the types, ask the server which values it takes, and make the tables, if they are not given already."""
        self.database.execute("create schema staged", _FITS, *SETUP)
        self.samples = self.samples or self._chosen()
        for sample in self.samples:
            sample.create(self.database)

    def _chosen(self) -> list[Sample]:
        rng = random.Random(self.seed)
        chosen = [(sort, self._values(rng, sort)) for sort in sorts(rng)]
        chosen = [(sort, values) for sort, values in chosen if values]
        rng.shuffle(chosen)
        samples: list[Sample] = []
        while chosen:
            width = rng.choice((1, 5, 10, 15, 30))
            samples.append(self._sample(rng, f"t{len(samples)}", chosen[:width]))
            chosen = chosen[width:]
        return samples

    def _values(self, rng: random.Random, sort: Sort) -> list[str]:
        """Texts that the type takes; none where the server does not know it."""
        texts = list(dict.fromkeys(sort.literal(rng).replace("\0", "") for _ in range(3 * self.rows)))
        query = "select value from unnest(%s::text[]) value where public.fits(%s, value)"
        return [text for (text,) in self.database.fetch(query, texts, sort.sql)][: self.rows]

    def _sample(self, rng: random.Random, name: str, chosen: Sequence[tuple[Sort, list[str]]]) -> Sample:
        columns, values = [], {}
        for number, (sort, texts) in enumerate(chosen):
            not_null = rng.random() < 0.25
            column = Column(f"c{number}", sort, f"c{number}", not_null)
            values[column.name] = self._spread(rng, texts, not_null=not_null)
            columns.append(column)
            if sort.array:
                listed = f"case when id % 9 <> 1 then array[c{number}]::{sort.array.sql} end"
                columns.append(Column(f"e{number}", sort.array, listed))
        return Sample(name, columns, values)

    def _spread(self, rng: random.Random, texts: list[str], *, not_null: bool) -> list[str | None]:
        """As many as there are rows."""
        repeated: list[str | None] = [*texts, *rng.choices(texts, k=self.rows)]
        return repeated[: self.rows] if not_null else [*repeated[: self.rows - 2], None, None]

    def statements(self, when: str) -> list[str]:
        """What is executed before the copy, and while the pipe follows."""
        if when == "copied":
            return [sample.fill(way) for sample in self.samples for way in ("copied", "kept")]
        inserted = [(sample.fill("inserted"), sample.fill("updated", shifted=3)) for sample in self.samples]
        updated = [(sample.change(), sample.touch()) for sample in self.samples]
        return [*chain.from_iterable(inserted), *chain.from_iterable(updated)]

    def differences(self, case: Case, rules: Rules) -> list[Difference]:
        """Every value that does not arrive as PostgreSQL has it, the shortest first."""
        found = list(chain.from_iterable(self._differing(case, rules, sample) for sample in self.samples))
        return sorted(found, key=lambda each: (len(each.printed or ""), each))

    def _differing(self, case: Case, rules: Rules, sample: Sample) -> Iterator[Difference]:
        names = ", ".join(f"toString({each.name})" for each in sample.columns)
        shown = {int(row[0] or 0): row[1:] for row in case.query(f"select id, {names} from {sample.name}_current")}
        for number, texts in sample.printed(self.database):
            row = shown.pop(number, None)
            for place, (column, text) in enumerate(zip(sample.columns, texts, strict=True)):
                expected = rules.column(column.sort, text, not_null=column.not_null).text
                if row is None or row[place] != expected:
                    got = "(no row)" if row is None else row[place]
                    kind = column.sort.sql + (" not null" if column.not_null else "")
                    yield Difference(kind, WAYS[number // STEP], text, expected, got)
        for number in shown:
            yield Difference(sample.name, WAYS[number // STEP], None, "(no row)", f"row {number}")

    def miscounted(self, statuses: Sequence[str], rules: Rules) -> list[str]:
        """Counters of unfit values that are not what the rules say; ``statuses``: of the run that copied, and of the one that followed."""
        copied, followed = (
            {each["full_name"]: Counter(each["counters"]) for each in json.loads(status)["tables"]}
            for status in statuses
        )
        return [
            f"{sample.name}: {line}"
            for sample in self.samples
            for name in [f"public.{sample.name}"]
            for line in self._miscounted(sample, [copied[name], followed[name] - copied[name]], rules)
        ]

    def _miscounted(self, sample: Sample, counters: Sequence[dict[str, int]], rules: Rules) -> Iterator[str]:
        """A row that was only touched brings small values once more, and large ones not."""
        unfit: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
        for number, texts in sample.printed(self.database):
            for column, text in zip(sample.columns, texts, strict=True):
                reason = rules.column(column.sort, text, not_null=column.not_null).reason
                if reason:
                    unfit[WAYS[number // STEP]][f"unfit {column.name}: {reason}"] += 1
        least = (unfit["copied"] + unfit["kept"], unfit["inserted"] + unfit["updated"] + unfit["updated"])
        more = (Counter[str](), unfit["kept"])
        for run, counted in enumerate(counters):
            for name in sorted({*least[run], *(each for each in counted if each.startswith("unfit"))}):
                count, low, high = counted.get(name, 0), least[run][name], least[run][name] + more[run][name]
                if not low <= count <= high:
                    kind = next(each.sort.sql for each in sample.columns if f" {each.name}:" in name)
                    yield f"{kind}: {name}: counted {count}, expected {low} to {high}, run {run + 1}"

    def disagreements(self, modules: Sequence[ModuleType]) -> list[str]:
        """Tables of which the decoders make different bytes."""
        connector = Connector(Source(dsn=self.database.dsn), "penstock test")
        connection = connector.connect()
        try:
            tables = read_tables(connection, lambda name: name.startswith("public."))
            found = []
            for table in tables:
                with connection.cursor().copy(
                    sql.SQL("copy (select {} from {}) to stdout").format(
                        sql.SQL(", ").join(sql.Identifier(each.name) for each in table.columns),
                        sql.Identifier(table.schema, table.name),
                    )
                ) as lines:
                    chunks = [bytes(line) for line in lines]
                plan = compile_plan(table, pipe_of(), SERVER)
                first, *others = [traces.of_copy(module, plan, chunks, (10_000, 1 << 30)) for module in modules]
                found += [table.full_name for other in others if other != first]
        finally:
            connection.close()
        return found
