"""Random texts of PostgreSQL's types, with a bias to the edges. A type may refuse one of them: the server is asked which it takes."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable

Literal = Callable[[random.Random], str]

_SHORT = (
    "", " ", "  a  ", "NULL", "null", "\\N", "\\.", "\\", "\\\\", '"', "'", "''", '""', "{}", "{", "}", ",", ";", "a,b", "(", ")",
    "it's", 'a"b', "a\\b", "\\'", "\t", "\n", "\r\n", "\b\f\v\a", "\x01", "\x1b[0m", "\x7f", "\u00a0", "é", "e\u0301", "€", "🐘", "𝄞",
    "\u202eabc", "\ufeff", "\uffff", "\U0010ffff", "=>", "%s", "$1", "`", "0", "-0", "NaN", "true", "[1]", "\\x00",
    "日本語", "ﷺ", "\u0085\u2028",
)  # fmt: skip
_ANY = [chr(code) for code in (*range(1, 0x80), 0xA0, 0xE9, 0x20AC, 0xFFFF, 0x1F418, 0x10FFFF)]
_LENGTHS = (1, 2, 5, 30, 63, 64, 126, 127, 128, 129, 300, 2000, 16_383, 16_384, 40_000)


def one_of(*texts: str) -> Literal:
    """Any of these."""
    return lambda rng: rng.choice(texts)


def words(rng: random.Random) -> str:
    """A text: short and tricky, of any characters, or long."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(_SHORT)
    if kind < 0.85:
        return "".join(rng.choices(_ANY, k=rng.randint(1, 20)))
    return (rng.choice(("x", "é", "\\", "'", "a b\n", "🐘")) * rng.choice(_LENGTHS))[: rng.choice(_LENGTHS)]


def label(rng: random.Random) -> str:
    """Of the enum that ``tests/sorts.py`` makes."""
    return rng.choice(("", "happy", "SAD", "it's", "a,b", "NULL", "a\\b", "{x}", "🐘"))


def whole(low: int, high: int) -> Literal:
    """An integer."""
    edges = (low, low + 1, -1, 0, 1, 9, 10, 99, 100, 127, 128, 255, 256, high - 1, high)
    return lambda rng: str(
        rng.choice(edges) if rng.random() < 0.6 else rng.randint(-(1 << rng.randint(1, 64)), 1 << rng.randint(1, 64))
    )


def real(least: int, most: int) -> Literal:
    """A float; its subnormals too."""
    special = (
        "NaN", "Infinity", "-Infinity", "0", "-0", "1", "-1", "0.1", "0.3", "1e-5", "1e-6", "1e-7", "123456.7", "1e15",
        "1e16", "1e20", "1e21",
        "1e22", "9007199254740993", "16777217", "5e-324", "1e-45", "2.2250738585072014e-308", "1.17549435e-38", "1.7976931348623157e308",
        "3.4028235e38", "4.35", "8388608.5", "9.5367431640625e-07", "2.98023223876953125e-08", "4.9406564584124654e-324", "1.5e-45",
    )  # fmt: skip

    def make(rng: random.Random) -> str:
        if rng.random() < 0.4:
            return rng.choice(special)
        if rng.random() < 0.3:
            return repr(rng.choice((-1, 1)) * 2.0 ** rng.randint(max(-1074, int(least * 3.3)), int(most * 3.32)))
        return f"{rng.choice(('', '-'))}{rng.randint(1, 9)}.{rng.getrandbits(60)}e{rng.randint(least, most)}"

    return make


def numeric(precision: int | None, scale: int | None) -> Literal:
    """A numeric; where no digits are declared, of up to 38 on either side, and of more."""

    def make(rng: random.Random) -> str:
        if rng.random() < 0.12:
            return rng.choice(("NaN", "Infinity", "-Infinity", "0", "-0.00", "1e-300", "1e300"))
        before = 38 if precision is None else max(precision - (scale or 0), 0)
        after = 38 if scale is None else max(scale, 0)
        digit = rng.choice(("9", "0", "1", "r"))

        def digits(most: int) -> str:
            count = rng.choice((0, 1, most - 1, most, most, most + (precision is None), rng.randint(0, most)))
            return "".join(rng.choice("0123456789") if digit == "r" else digit for _ in range(max(count, 0)))

        number = f"{digits(before) or '0'}.{digits(after)}0"
        return rng.choice(("", "-")) + number + (rng.choice(("", "00", "1")) if precision is None else "")

    return make


def raw(rng: random.Random) -> str:
    """Bytes."""
    edges = (b"", b"\0", b"\0\0", b"\xff", b"\\x", b"\\", b"'", b"\n\t", b"{}", bytes(range(256)))
    return "\\x" + (rng.choice(edges) if rng.random() < 0.5 else rng.randbytes(rng.choice(_LENGTHS))).hex()


def identifier(rng: random.Random) -> str:
    """A UUID."""
    number = rng.choice((0, 2**128 - 1, 1, 1 << 64, (1 << 64) - 1, rng.getrandbits(128), rng.getrandbits(128)))
    return str(uuid.UUID(int=number))


_DAYS = (
    "infinity", "-infinity", "0001-01-01", "0001-12-31 BC", "0001-02-29 BC", "4714-11-24 BC", "0044-03-15 BC", "1582-10-04", "1582-10-15",
    "1899-12-31", "1900-01-01", "1900-02-28", "1900-03-01", "1925-01-01", "1969-12-31", "1970-01-01", "1970-01-02",
    "2000-02-29", "2024-02-29",
    "2023-02-28", "2038-01-19", "2038-01-20", "2100-02-28", "2105-12-31", "2106-02-07", "2149-06-06", "2149-06-07",
    "2262-04-11", "2262-04-12",
    "2283-11-11", "2299-12-31", "2300-01-01", "9999-12-31", "10000-01-01", "294276-12-31", "5874897-12-31",
    "1752-09-03", "0100-03-01", "0004-02-29",
)  # fmt: skip
_CLOCKS = (
    "00:00:00", "00:00:00.000001", "23:59:59.999999", "12:00:00", "12:34:56.7", "23:59:59", "02:30:00", "01:59:59.9",
    "00:00:01", "04:00:54.775807",
    "04:00:54.775808", "03:14:07", "03:14:08", "23:47:16.854775", "23:47:16.854776", "12:00:00.10", "12:00:00.000010",
)  # fmt: skip
_ZONES = (
    "", "", "+00", "Z", "+14", "-12", "+05:45", "-00:00:01", "+15:59:59", " Europe/Berlin", " America/St_Johns",
    " Pacific/Apia", " Asia/Kathmandu",
    " Africa/Monrovia", " Europe/Amsterdam", " Australia/Lord_Howe", " Antarctica/Troll", " UTC", " EST5EDT",
)  # fmt: skip


def day(rng: random.Random) -> str:
    """A date, also of the years that only PostgreSQL has."""
    if rng.random() < 0.6:
        return rng.choice(_DAYS)
    year = rng.choice((rng.randint(1, 9999), rng.randint(1890, 2310), rng.randint(1, 5_874_000)))
    return f"{year:04}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}" + (" BC" if rng.random() < 0.1 else "")


def clock(rng: random.Random) -> str:
    """A time of day."""
    if rng.random() < 0.1:
        return "24:00:00"
    if rng.random() < 0.5:
        return rng.choice(_CLOCKS)
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}.{rng.getrandbits(60)}"


def moment(rng: random.Random) -> str:
    """A timestamp with or without a zone."""
    text = day(rng)
    if "infinity" in text:
        return text
    date, _, era = text.partition(" ")
    if len(date) > 12 and rng.random() < 0.9:
        date = date[-10:]
    return f"{date} {clock(rng)}{rng.choice(_ZONES)} {era}".rstrip()


def clock_with_zone(rng: random.Random) -> str:
    """A time of day with its zone."""
    return clock(rng) + rng.choice(("+00", "-12", "+14", "+05:45", "-15:59:59", "+15:59:59"))


def span(rng: random.Random) -> str:
    """An interval."""
    edges = (
        "0", "178000000 years", "-178000000 years", "1 month -1 day", "-1 month +1 day -00:00:00.000001",
        "P1Y2M3DT4H5M6.7S", "24:00:00", "25 hours",
        "2562047788:00:54.775807", "-2562047788:00:54.775807", "1 microsecond", "-0.5 seconds", "infinity",
        "-infinity", "14 mons", "-13 mons",
    )  # fmt: skip
    if rng.random() < 0.6:
        return rng.choice(edges)
    return f"{rng.randint(-99, 99)} mons {rng.randint(-400, 400)} days {rng.randint(-(10**12), 10**12)} microseconds"


def address(rng: random.Random) -> str:
    """An inet."""
    edges = (
        "0.0.0.0",
        "255.255.255.255",
        "10.0.0.1/8",
        "::",
        "::1/128",
        "fe80::1/64",
        "::ffff:1.2.3.4",
        "::1.2.3.4",
        "1:0:0:2::3",
        "2001:db8::/32",
    )
    return rng.choice(edges)


def bits(rng: random.Random) -> str:
    """A bit string."""
    return "".join(rng.choices("01", k=rng.choice((0, 1, 7, 8, 9, 64, 65, 300))))


def document(rng: random.Random) -> str:
    """A JSON text."""
    edges = (
        "null", "{}", "[]", '""', "0", "-0", "1.50", "1e400", "1E-400", "true", '{"a":1,"a":2}', ' { "b" : [ 1 , 2 ] } ',
        '"\\u0041\\n\\"\\\\"',
        '{"":""}', "12345678901234567890.123456789012345678901234567890", '"\\ud834\\udd1e"', '[[[[[{"a":[null]}]]]]]', "[\n\t1\r\n]",
    )  # fmt: skip
    if rng.random() < 0.6:
        return rng.choice(edges)
    return json.dumps({words(rng): [words(rng), rng.random(), None]}, ensure_ascii=rng.random() < 0.5)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def composite(rng: random.Random) -> str:
    """Of the type pair."""
    return f"({rng.choice(('', '1', '-2147483648'))},{rng.choice(('', _quoted(words(rng))))})"


def nested_composite(rng: random.Random) -> str:
    """Of the type nest."""
    at = rng.choice(("", '"2024-02-29 12:00:00.5+00"', '"0044-03-15 00:00:00+00 BC"', "infinity"))
    listed = rng.choice(("", "{}", _quoted('{NULL,"NULL","a\\"b"}')))
    return f"({rng.choice(('', _quoted(composite(rng))))},{at},{rng.choice(('', '1.5', 'NaN'))},{listed})"


def geometric(form: str) -> Literal:
    """A shape, of floats of every size."""
    number = one_of(
        "0", "-0", "1", "-1.5", "0.1", "1e300", "5e-324", "NaN", "Infinity", "-Infinity", "1e-7", "123456789012345678"
    )
    return lambda rng: form.format(*(number(rng) for _ in range(form.count("{}"))))


def range_of(bound: Literal) -> Literal:
    """A range, also empty or without a bound."""

    def make(rng: random.Random) -> str:
        if rng.random() < 0.2:
            return rng.choice(("empty", "(,)", "[,]"))
        low, high = (_quoted(bound(rng)) if rng.random() < 0.8 else "" for _ in range(2))
        return f"{rng.choice('[(')}{low},{high}{rng.choice('])')}"

    return make


def several(part: Literal) -> Literal:
    """A multirange."""
    return lambda rng: "{" + ",".join(part(rng) for _ in range(rng.randint(0, 3))) + "}"


def pairs(rng: random.Random) -> str:
    """An hstore."""
    found = (
        f"{_quoted(words(rng))}=>{'NULL' if rng.random() < 0.2 else _quoted(words(rng))}"
        for _ in range(rng.randint(0, 4))
    )
    return ", ".join(found)


def vector(rng: random.Random) -> str:
    """Of pgvector, of three dimensions or of many."""
    edges = ("0", "-0", "1", "-1.5", "65504", "6e-8", "3.4028235e38", "1e-45", "0.1", "16777217", "1e-7")
    numbers = [
        rng.choice(edges) if rng.random() < 0.6 else repr(rng.uniform(-9, 9))
        for _ in range(rng.choice((1, 3, 3, 3, 200)))
    ]
    return f"[{','.join(numbers)}]"


def sparse(rng: random.Random) -> str:
    """Of pgvector, up to what is expanded, and beyond."""
    dimensions = rng.choice((1, 5, 5, 200, 1_048_576, 1_048_577))
    places = sorted(rng.sample(range(1, dimensions + 1), min(dimensions, rng.randint(0, 4))))
    return (
        "{"
        + ",".join(f"{place}:{rng.choice(('-1.5', '0.1', '1e-45', '7'))}" for place in places)
        + "}/"
        + str(dimensions)
    )


def array(element: Literal, delimiter: str, dimensions: int = 1) -> Literal:
    """An array, sometimes of other dimensions or bounds, empty, or with NULL."""

    def listed(rng: random.Random, lengths: list[int]) -> str:
        if not lengths:
            return "NULL" if rng.random() < 0.15 else _quoted(element(rng))
        return "{" + delimiter.join(listed(rng, lengths[1:]) for _ in range(lengths[0])) + "}"

    def make(rng: random.Random) -> str:
        if rng.random() < 0.1:
            return "{}"
        levels = dimensions if rng.random() < 0.85 else rng.randint(1, 6)
        lengths = [rng.choice((1, 2, 3)) for _ in range(levels)]
        low = rng.choice((0, -5, 1, 2_000_000_000))
        bounds = "".join(f"[{low}:{low + length - 1}]" for length in lengths) + "=" if rng.random() < 0.1 else ""
        return bounds + listed(rng, lengths)

    return make
