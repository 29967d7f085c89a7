"""Every type that a column can have, with random literals that lean to the edges: what ``test_types_four_ways.py`` makes tables of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests import literals as made

if TYPE_CHECKING:
    import random

    from tests.literals import Literal

SETUP = (
    *(
        f"create extension if not exists {each}"
        for each in ("hstore", "citext", "ltree", "cube", "seg", "isn", "lo", "intarray")
    ),
    "do $$ begin create extension vector; exception when undefined_file or feature_not_supported then null; end $$",  # few servers have it
    "create type mood as enum ('', 'happy', 'SAD', 'it''s', 'a,b', 'NULL', 'a\\b', '{x}', '🐘')",
    "create type pair as (a int, b text)",
    "create type nest as (p pair, at timestamptz, n numeric(9, 2), list text[])",
    "create domain age as int check (value >= 0)",
    "create domain price as numeric(9, 2)",
    "create domain words as text[]",
    "create domain feeling as mood",
    "create domain twice as age",
    "create type floats as range (subtype = float8)",
)


@dataclass(frozen=True, slots=True)
class Sort:
    """A type as a column's. ``rule`` names how its text maps (``tests/expected.py``), with ``numbers`` (precision and scale).

    An array has the ``element``'s rule in ``dimensions`` levels. ``literal`` is any text that the type may take.
    """

    sql: str
    rule: str
    literal: Literal
    numbers: tuple[int, int] | None = None
    element: Sort | None = None
    dimensions: int = 0

    @property
    def array(self) -> Sort | None:
        """The array of it, None of an array, and of what ``array[…]`` takes for one."""
        if self.element or self.sql in ("int2vector", "oidvector"):
            return None
        return Sort(self.sql + "[]", "array", self.literal, element=self, dimensions=1)


def sorts(rng: random.Random) -> list[Sort]:
    """All of them, with random parameters; those that the server does not know are to be left out."""
    plain = [Sort(sql, rule, literal) for rule, kinds in _PLAIN.items() for sql, literal in kinds.items()]
    with_numbers = [_numeric(*rng.choice(_DIGITS)) for _ in range(3)] + [
        _numeric(rng.randint(1, 76), None, rng) for _ in range(2)
    ]
    domains = [
        Sort("price", "decimal", made.numeric(9, 2), (9, 2)),
        Sort("age", "number", made.whole(0, 2**31 - 1)),
        Sort("twice", "number", made.whole(0, 2**31 - 1)),
        Sort("feeling", "text", made.label),
        Sort("words", "array", made.array(made.words, ","), element=_TEXT, dimensions=1),
    ]
    modified = [Sort(sql.format(rng.randint(*bounds)), rule, literal) for sql, rule, bounds, literal in _MODIFIED]
    known = [*plain, *with_numbers, *modified]
    arrays = [
        Sort(
            each.sql + "[]" * dimensions,
            "array",
            made.array(each.literal, ";" if each.sql == "box" else ",", dimensions),
            element=each,
            dimensions=dimensions,
        )
        for each in rng.sample([each for each in known if each.array], 12)
        for dimensions in (rng.choice((1, 1, 2, 3)),)
    ]
    return [*known, *domains, *arrays]


def _numeric(precision: int, scale: int | None, rng: random.Random | None = None) -> Sort:
    """A Decimal where it fits in 76 digits, also where the scale is negative, or greater than the precision."""
    if scale is None:
        scale = rng.randint(0, precision) if rng else 0
    whole = precision - scale if scale < 0 else max(precision, scale)
    rule, numbers = ("text", None) if whole > 76 else ("decimal", (whole, max(scale, 0)))
    return Sort(f"numeric({precision},{scale})", rule, made.numeric(precision, scale), numbers)


_DIGITS = (
    (1, 0),
    (1, 1),
    (9, 2),
    (10, 2),
    (18, 18),
    (38, 38),
    (76, 0),
    (76, 76),
    (77, 3),
    (1000, 500),
    (5, -3),
    (3, 5),
)
_TEXT = Sort("text", "text", made.words)
_PLAIN: dict[str, dict[str, Literal]] = {
    "number": {
        "int2": made.whole(-(2**15), 2**15 - 1),
        "int4": made.whole(-(2**31), 2**31 - 1),
        "int8": made.whole(-(2**63), 2**63 - 1),
        "oid": made.whole(0, 2**32 - 1),
        "xid": made.whole(0, 2**32 - 1),
        "lo": made.whole(0, 2**32 - 1),
    },
    "float4": {"float4": made.real(-45, 38)},
    "float8": {"float8": made.real(-324, 308)},
    "bool": {"bool": made.one_of("t", "f")},
    "numeric": {"numeric": made.numeric(None, None)},
    "bytea": {"bytea": made.raw},
    "uuid": {"uuid": made.identifier},
    "date": {"date": made.day},
    "timestamp": {"timestamp": made.moment, "timestamptz": made.moment},
    "time": {"time": made.clock},
    "hstore": {"hstore": made.pairs},
    "vector": {"vector": made.vector, "vector(3)": made.vector, "halfvec": made.vector, "sparsevec": made.sparse},
    "text": {
        "text": made.words,
        "varchar": made.words,
        "bpchar": made.words,
        "name": made.words,
        "citext": made.words,
        '"char"': made.one_of("", "a", "\\", "'", " ", "é", "\\351", "\x01"),
        "refcursor": made.words,
        "xml": made.one_of("", "<a/>", "<a b=\"c\">d &amp; 'e'</a>", "text", "<?xml version='1.0'?><é>\t\n</é>"),
        "json": made.document,
        "jsonb": made.document,
        "jsonpath": made.one_of("$", "$.a[*] ? (@.b > 1.50)", 'strict $."x y"', "$.**{2 to last}"),
        "mood": made.label,
        "pair": made.composite,
        "nest": made.nested_composite,
        "timetz": made.clock_with_zone,
        "interval": made.span,
        "money": made.one_of("0", "-0.01", "92233720368547758.07", "-92233720368547758.08", "1,234.5"),
        "inet": made.address,
        "cidr": made.one_of("10.0.0.0/8", "::/0", "0.0.0.0/0", "2001:db8::/32", "192.168.1.1/32", "::ffff:1.2.3.4/128"),
        "macaddr": made.one_of("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "08002b:010203"),
        "macaddr8": made.one_of("00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff", "08002b0102030405"),
        "varbit": made.bits,
        "bit": made.one_of("0", "1"),
        "pg_lsn": made.one_of("0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"),
        "tid": made.one_of("(0,0)", "(4294967295,65535)"),
        "cid": made.whole(0, 2**32 - 1),
        "xid8": made.whole(0, 2**64 - 1),
        "txid_snapshot": made.one_of("10:20:10,14,15", "1:1:"),
        "pg_snapshot": made.one_of("10:20:10,14,15", "1:1:"),
        "tsvector": made.one_of("", "'a':1A,2B 'b'", "'it''s':3 'a\\\\b'", "'a b' 'c,d'"),
        "tsquery": made.one_of("", "'a' & !'b':*A | 'c' <2> 'd'", "'it''s' & 'x\\\\y'"),
        "point": made.geometric("({},{})"),
        "line": made.geometric("{{{},{},{}}}"),
        "lseg": made.geometric("[({},{}),({},{})]"),
        "box": made.geometric("({},{}),({},{})"),
        "path": made.geometric("[({},{}),({},{}),({},{})]"),
        "polygon": made.geometric("(({},{}),({},{}),({},{}))"),
        "circle": made.geometric("<({},{}),1>"),
        "int4range": made.range_of(made.whole(-(2**31), 2**31 - 2)),
        "int8range": made.range_of(made.whole(-(2**63), 2**63 - 2)),
        "numrange": made.range_of(made.numeric(None, None)),
        "daterange": made.range_of(made.day),
        "tsrange": made.range_of(made.moment),
        "tstzrange": made.range_of(made.moment),
        "floats": made.range_of(made.real(-324, 308)),
        "int4multirange": made.several(made.range_of(made.whole(-(2**31), 2**31 - 2))),
        "tstzmultirange": made.several(made.range_of(made.moment)),
        "nummultirange": made.several(made.range_of(made.numeric(None, None))),
        "regclass": made.one_of("pg_catalog.pg_class", "-", "12345678", "0"),
        "regtype": made.one_of("int4", "pair", "text[]", "-", "double precision"),
        "regproc": made.one_of("now", "-", "pg_catalog.hashtext"),
        "regprocedure": made.one_of("now()", "-", "substr(text, integer)"),
        "regoper": made.one_of("!~~", "0"),
        "regoperator": made.one_of("+(integer,integer)", "0"),
        "regnamespace": made.one_of("public", "pg_catalog", "-"),
        "regrole": made.one_of("postgres", "-"),
        "regconfig": made.one_of("english", "simple"),
        "regdictionary": made.one_of("simple"),
        "regcollation": made.one_of('"C"', '"POSIX"'),
        "aclitem": made.one_of("postgres=arwdDxt/postgres", "=r*/postgres"),
        "int2vector": made.one_of("", "1 -2 32767", "0"),
        "oidvector": made.one_of("", "1 4294967295"),
        "ltree": made.one_of("", "a", "Top.Science.Astro_1"),
        "lquery": made.one_of("*.a{1,}.!b@*", "a|b.*"),
        "ltxtquery": made.one_of("a & b*@ | !c"),
        "cube": made.geometric("({},{}),({},{})"),
        "seg": made.one_of("1.50 .. 2", "~5", "<1e-7", "1(+-)0.5", "6.25 .. "),
        "ean13": made.one_of("978-0-11-000533-4", "2-00-000000000-9!"),
        "isbn": made.one_of("978-0-393-04002-9"),
        "query_int": made.one_of("1&(2|!3)", "7"),
    },
}
_MODIFIED: list[tuple[str, str, tuple[int, int], Literal]] = [
    ("varchar({})", "text", (1, 300), made.words),
    ("char({})", "text", (1, 20), made.words),
    ("bit({})", "text", (1, 70), made.bits),
    ("varbit({})", "text", (1, 70), made.bits),
    ("timestamp({})", "timestamp", (0, 5), made.moment),
    ("timestamptz({})", "timestamp", (0, 5), made.moment),
    ("time({})", "time", (0, 5), made.clock),
    ("timetz({})", "text", (0, 5), made.clock_with_zone),
    ("interval({})", "text", (0, 5), made.span),
]
