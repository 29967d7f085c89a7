"""Writes the pages of docs/ that are made from the code: configuration.md, types.md, errors.md, commands.md.

``python docs/generate.py`` writes them, ``pages()`` gives them to the test that compares.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import ByteSize
from typer.main import get_command

from penstock import errors
from penstock.cli.main import app
from penstock.config import Pipe, Secret, Section, parse
from penstock.decode.codecs.nested import MOST_DIMENSIONS
from penstock.errors import NotYetError, PenstockError
from penstock.pipeline.prepare import refuse_not_yet
from penstock.postgres.guide import guides
from penstock.table import Column, Type, TypeKind
from penstock.typemap import AS_TEXT, ENUM, ROWS, TEXTS, Capabilities, Forms, Row, Target, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

HERE = Path(__file__).parent
NOTE = "<!-- Made by `make docs` from {origin}. Change it there. -->\n"

_PROVIDERS = NOTE.format(origin="src/penstock/postgres/providers/")


def pages() -> dict[str, str]:
    """Every generated page by its path in docs/."""
    return {
        "configuration.md": "\n".join(_configuration()),
        "types.md": "\n".join(_types()),
        "errors.md": "\n".join(_errors()),
        "commands.md": "\n".join(_commands()),
        **{f"sources/{name}": f"{_PROVIDERS}\n{page}" for name, page in guides().items()},
    }


# configuration.md

CONFIGURATION = """\
# Configuration

A pipe is one TOML file; [examples/shop.toml](../examples/shop.toml) is a whole one. Unknown keys are refused, with the
nearest known one. A duration is a number with a unit (`"500ms"`, `"1s"`, `"5m"`), a size likewise (`"64MiB"`). A secret
is never written into the file: `{ env = "NAME" }` or `{ file = "path" }` says where it is read from.
"""


def _configuration() -> Iterator[str]:
    yield NOTE.format(origin="src/penstock/config/")
    yield CONFIGURATION
    for name, field in Pipe.model_fields.items():
        model = _model(field)
        if model is not None:
            yield from _section(f"[{name}]", model)


def _not_yet(section: str, key: str, value: object) -> bool:
    """Whether a pipe with this setting is refused as not built yet."""
    raw: dict[str, dict[str, object]] = {
        "pipe": {"name": "x"},
        "source": {"dsn": "host=x"},
        "destination": {"dsn": "chdb:///x"},
    }
    raw[section] = {**raw.get(section, {}), key: value}
    try:
        refuse_not_yet(parse(raw, origin="docs"))
    except NotYetError:
        return True
    return False


def _later(section: str, key: str, field: FieldInfo) -> str:
    """The values of a setting that this version refuses, in words."""
    if section not in ("pipe", "source", "destination", "settings"):
        return ""
    if get_origin(field.annotation) is Literal:
        refused = [f"`{each}`" for each in get_args(field.annotation) if _not_yet(section, key, each)]
        return f" Not yet: {', '.join(refused)}." if refused else ""
    return ""


def _section(title: str, model: type[Section]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{inspect.getdoc(model)}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    nested: list[tuple[str, type[Section]]] = []
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        inner = _model(field)
        if inner is not None and inner not in (Secret, model):
            nested.append((name, inner))
        meaning = _cell(field.description or "") + _later(title.strip("[]"), name, field)
        yield f"| `{name}` | {_kind(field)} | {_default(field)} | {meaning} |"
    yield ""
    for name, inner in nested:
        path = f"{title[:-1]}.{name}]" if name != "options" else f'{title[:-1]}.options."schema.table"]'
        yield from _section(path, inner)


def _model(field: FieldInfo) -> type[Section] | None:
    for each in (field.annotation, *get_args(field.annotation)):
        if isinstance(each, type) and issubclass(each, Section):
            return each
    return None


KINDS = {
    "tuple": "list of strings",
    "dict": "table",
    "str": "string",
    "bool": "true \\| false",
    "int": "integer",
    "float": "duration",
    "ByteSize": "size",
}


def _kind(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    model = _model(field)
    if model is not None:
        return "secret" if model is Secret else "table"
    if get_origin(annotation) is Literal:
        return " \\| ".join(f'`"{each}"`' for each in get_args(annotation))
    return KINDS[(get_origin(annotation) or annotation).__name__] + _bounds(field)


def _bounds(field: FieldInfo) -> str:
    low = next((each.ge for each in field.metadata if hasattr(each, "ge")), None)
    high = next((each.le for each in field.metadata if hasattr(each, "le")), None)
    if field.annotation is not int or low is None:
        return ""
    return f", {low:,} to {high:,}" if high is not None else f", {low:,} or more"


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if value is None or value == {} or isinstance(value, Section):
        return "–"
    return f"`{_toml(value, duration=field.annotation is float)}`"


def _toml(value: object, *, duration: bool = False) -> str:
    if isinstance(value, ByteSize):
        return _quoted(value.human_readable(separator="").replace(".0", ""))
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if duration:
        return _quoted(f"{value:g}s")
    return json.dumps(value)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


# types.md

NEWEST = Capabilities("", date32=(0, 0), datetime64=(0, 0), time64=True, json=True)  # the ranges play no part here
NUMERICS = (
    ("numeric(10, 2)", 10, 2),
    ("numeric(5, -3)", 5, -3),
    ("numeric(3, 5)", 3, 5),
    ("numeric(100, 20)", 100, 20),
)
AS_JSON = Forms(json="json")
OBJECTS = Row((), AS_TEXT, "objects, as values: see below", '{"a": [1, 2.5]}')
TYPES = """\
# Types

Copy and stream both carry PostgreSQL's text form, so one codec serves both. What was in PostgreSQL is in ClickHouse, the
same through copy, insert and update, as a value or as an array's element. A value that its ClickHouse type cannot hold becomes NULL, or
the nearest bound where the column is not Nullable; it is counted by table, column and reason, and shows in the status
(`on_unfit = "fail"` sets the table aside instead). In a key column it always sets the table aside: two keys must never
merge.

The last column is what NULL becomes with `nullable = false`: one value a type, the same in copy and stream.

| PostgreSQL | ClickHouse | arrives as it is | cannot be held | example | NULL without Nullable |
|---|---|---|---|---|---|"""

TYPES_END = f"""\
| domain | as its base type | | | | |

* **NULL.** A column is `Nullable` where PostgreSQL lets it be NULL and it is not part of the key; a Decimal outside
  the key always is. ClickHouse has no NULL for arrays and maps: it becomes empty, and is counted. A NULL stays NULL where
  the column has a DEFAULT in ClickHouse.
* **What does not fit** is counted once for each row it is written in, whether it is a value or an array's element. The
  log names the column, the reason and the key of the first such row, never the value; the status and `--json` have the counts of
  this run. With `on_unfit = "fail"` the table is set aside, and the message names the row's key.
* **Arrays** have the dimensions that the column declares (one, where it declares none). Lower bounds other than 1 are
  not kept, and are counted. Elements of a domain over arrays are PostgreSQL's text.
* **JSON.** `json = "string"` keeps the text exactly, byte for byte. `json = "json"`, or `types = {{ column = "JSON" }}`,
  makes it ClickHouse's type `JSON`, and that keeps no text but paths with values. Objects only: an array, text, number or
  `null` at the top is unfit ("no object"), and so is what ClickHouse refuses ("refused by JSON"): a key that stands twice,
  also as `a.b` beside `a: {{b}}`, a number beyond Float64, half a surrogate pair, more than 1000 levels, and up to 26.7 a
  whole number beyond 64 bits. What is kept, changes in this way, and is not counted: keys are in ClickHouse's order; `null`
  members and empty objects are gone (elements of arrays stay); `a.b` is the same as `b` within `a`; numbers are Int64,
  UInt64 or Float64, so that 1.50 is 1.5 and 17 digits are left of a fraction; whole numbers in an array are Float64 too
  beside fractions, also those of other rows that are written with it; from 26.9 on a whole number beyond 64 bits becomes a
  text. Texts stay texts, also those that look like dates or numbers. A value that an UPDATE leaves out is taken from
  ClickHouse where its text makes the same value again, and read from PostgreSQL otherwise. In a key, in a table without a
  key, and in arrays JSON stays text. A ClickHouse that has no `JSON`, or does not say which values it refuses (25.5), gets
  `String`; `penstock check` and the log say so.
* **LowCardinality.** `types = {{ status = "LowCardinality(String)" }}` for texts of few kinds; NULL stays NULL.
* **Keys.** In the sorting key an array, hstore, vector or geometry is PostgreSQL's text in a `String`.
* **Other types.** `types` in the [configuration](configuration.md) asks for another one, if it holds every value:
  `String` and `LowCardinality(String)` for any column, wider integers and floats, a Decimal with as many digits on
  either side, whole numbers for `numeric(p, 0)`, `DateTime64(6, '…')` in another time zone, and arrays of these. For
  a numeric without a declaration any Decimal may be named. `bytea` and `json` in `[settings]` choose the form of
  these types for the whole pipe.
* **The server's time zone.** A `timestamp` has none: it is shown as PostgreSQL prints it. On a ClickHouse whose time zone is not
  UTC it is therefore a `DateTime64(6, 'UTC')` too.
* **The server's range.** Dates and times have the range of the server, which is asked once: the years 1900 to 2299 in
  older ones; 1 to 9999 from ClickHouse 26.7 on for `DateTime64`, from 26.9 on for `Date32`. Where there is no
  `Time64` (before 26.1), `time` is a `String`. `penstock check` and the log of a run name the columns that hold less
  than on the newest release. What became a `String` on an older server stays one after its upgrade, until
  `penstock resync`.
* **Vectors** with more than {MOST_DIMENSIONS:,} dimensions are too large to be expanded.
* Generated columns are left out of copy and stream alike.

## Sizes, encodings, names

* **Sizes.** Nothing is cut. PostgreSQL sends a row as text of at most 1 GB, in which a `bytea` takes two bytes for each of its
  own: beyond that PostgreSQL itself reports an error, which sets the table aside in the copy, and stops the pipe in the
  stream, which all tables share. A value takes about six times its size of memory while it passes through. Unchanged
  values that are completed wait in a file of `PENSTOCK_HOME` when they are more than 16 MiB together.
* **Encodings.** Texts arrive in UTF-8, converted by PostgreSQL. In a `SQL_ASCII` database bytes that are not UTF-8 arrive
  as they are. A character that UTF-8 lacks (some codes of EUC_JP) is an error of PostgreSQL's, as above.
* **Names** of tables, schemas and columns arrive as they are, with any sign in them. Refused are, by `penstock check` too:
  names that are not UTF-8; a column called as a metadata column (`metadata_prefix`); a column `x.null`, `x.size`, `x.size0`,
  `x.keys` or `x.values` beside a column `x`, and any `x.…` beside a JSON `x` (`exclude_columns`); targets that clash
  (`target`). A name that is too long for a file, about 200 bytes where each byte that is no ASCII letter, digit or
  underscore counts three times, sets its table aside (`target`).
"""


def _types() -> Iterator[str]:
    yield NOTE.format(origin="src/penstock/typemap.py")
    yield TYPES
    for row in ROWS:
        if "numeric" in row.names:
            for shown, precision, scale in NUMERICS:
                yield _type_row(shown, _target(row, ((precision << 16) | (scale & 0x7FF)) + 4), row)
        yield _type_row(", ".join(map(_sql_name, row.names)), _target(row), row)
        if "json" in row.names:
            yield _type_row('with `json = "json"`', _target(row, forms=AS_JSON), OBJECTS)
    yield _type_row("enum", ENUM, Row((), ENUM, "all; a new label needs nothing", "happy"))
    for row in TEXTS:
        yield _type_row(", ".join(row.names), AS_TEXT, row)
    integers = Column("x", 1, Type(0, "_int4", "int4[]", TypeKind.ARRAY, inner=Type(0, "int4", "int4")), dimensions=2)
    yield _type_row("T[][]", target_of(integers, NEWEST, Forms()), Row((), AS_TEXT, "all", "{{1,NULL},{2,3}}"))
    yield TYPES_END


def _target(row: Row, modifier: int = -1, *, forms: Forms | None = None) -> Target:
    return row.of(Type(0, row.names[0], row.names[0], TypeKind.BASE, modifier), NEWEST, forms or Forms())


def _type_row(postgres: str, target: Target, row: Row) -> str:
    zero = f"`{target.zero}`" if target.zero else "empty"
    return f"| {postgres} | `{target.clickhouse}` | {row.range} | {target.unfit} | `{_cell(row.example)}` | {zero} |"


def _sql_name(name: str) -> str:
    known = {
        "int2": "smallint", "int4": "integer", "int8": "bigint", "float4": "real", "float8": "double precision", "bool": "boolean",
        "numeric": "numeric without precision",
    }  # fmt: skip
    return known.get(name, name)


# errors.md


ERRORS = """\
# Errors

Every error names the object, says what happened and what to do next, and holds no secret and of a row nothing but its key. A
`TableError` stops one table; the others go on. What is retried is retried for ever, with growing pauses, and shows in
the status meanwhile.

| error | meaning | trying again |
|---|---|---|"""

EXIT_CODES = """
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed: the error says why |
| 2 | wrong usage or configuration |
| 3 | `penstock check` found something that blocks the pipe |
"""


def _errors() -> Iterator[str]:
    yield NOTE.format(origin="src/penstock/errors.py")
    yield ERRORS
    for kind in _subclasses(PenstockError):
        yield f"| `{kind.__name__}` | {_cell(inspect.getdoc(kind) or '')} | {kind.retry.value} |"
    yield EXIT_CODES


def _subclasses(kind: type[PenstockError]) -> Iterator[type[PenstockError]]:
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from _subclasses(each)


# commands.md

COMMANDS = """\
# Commands

What `--help` says. Exit codes stand in [errors.md](errors.md).

| environment variable | meaning |
|---|---|
| `PENSTOCK_HOME` | the folder of the pipes' state; without it the platform's folder for an application's data |
| `PENSTOCK_ADMIN_DSN` | the administrator's DSN, for `penstock setup` alone |
| `PENSTOCK_DECODER` | `native` or `python`; without it the compiled decoder where it is there |
"""


def _commands() -> Iterator[str]:
    yield NOTE.format(origin="the commands' help")
    yield COMMANDS
    yield from _help()
    root: Any = get_command(app)
    for name in sorted(name for name, command in root.commands.items() if not command.hidden):
        yield from _help(name)


def _help(*words: str) -> Iterator[str]:
    command: Any = get_command(app)
    for word in words:
        command = command.commands[word]
    positional = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    yield f"## {' '.join(('penstock', *words))}\n"
    names = " ".join((*words, *(each.metavar or each.name for each in positional)))
    yield f"```text\npenstock {names or '[OPTIONS] COMMAND …'}\n```\n"
    yield _indented_example(inspect.cleandoc(command.help or "")) + "\n"
    yield "| | meaning | default |\n|---|---|---|"
    for each in (*positional, *options):
        name = each.metavar or each.name if each in positional else ", ".join(each.opts)
        yield f"| `{name}` | {_cell(each.help or '')} | {_shown_default(each.default)} |"
    yield ""


def _indented_example(text: str) -> str:
    before, colon, example = text.rpartition("Example: ")
    return f"{before}```sh\n{example}\n```" if colon else text


def _shown_default(value: object) -> str:
    return f"`{value}`" if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "" else ""


if __name__ == "__main__":
    for page, text in pages().items():
        (HERE / page).parent.mkdir(parents=True, exist_ok=True)
        (HERE / page).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
