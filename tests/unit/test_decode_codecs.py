"""Every codec at its edges, against Python's own decimal, datetime, struct and uuid."""

from __future__ import annotations

import math
import struct
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from tests.plans import DAY_MICROS, SERVER

from penstock.batch import Value, varint
from penstock.decode.codecs.unfit import INFINITY, NAN, OUT_OF_RANGE, TOO_MANY_DIGITS
from penstock.errors import BadDataError
from penstock.typemap import Codec, Kind

if TYPE_CHECKING:
    from types import ModuleType

INT16, INT32, INT64 = Codec(Kind.INT16, 2), Codec(Kind.INT32, 4), Codec(Kind.INT64, 8)
UINT32 = Codec(Kind.UINT32, 4)
FLOAT32, FLOAT64 = Codec(Kind.FLOAT32, 4), Codec(Kind.FLOAT64, 8)
BOOL, STRING, BYTEA, UUID = Codec(Kind.BOOL, 1), Codec(Kind.STRING, 0), Codec(Kind.BYTEA, 0), Codec(Kind.UUID, 16)
DATE = Codec(Kind.DATE32, 4, minimum=SERVER.date32[0], maximum=SERVER.date32[1])
WIDE_DATE = Codec(Kind.DATE32, 4, minimum=-(2**31), maximum=2**31 - 1)
TIMESTAMP = Codec(Kind.DATETIME64, 8, minimum=SERVER.datetime64[0], maximum=SERVER.datetime64[1])
WIDE_TIMESTAMP = Codec(Kind.DATETIME64, 8, minimum=-(2**63), maximum=2**63 - 1)
TIME = Codec(Kind.TIME64, 8)


def decimal(precision: int, scale: int) -> Codec:
    width = 4 if precision <= 9 else 8 if precision <= 18 else 16 if precision <= 38 else 32
    return Codec(Kind.DECIMAL, width, precision=precision, scale=scale)


def number(value: Value, *, signed: bool = True) -> int:
    assert not value.null
    return int.from_bytes(value.data, "little", signed=signed)


@pytest.mark.parametrize("codec", [INT16, INT32, INT64])
def test_integers(decoder: ModuleType, codec: Codec) -> None:
    low, high = -(1 << codec.width * 8 - 1), (1 << codec.width * 8 - 1) - 1
    for value in (low, low + 1, -1, 0, 1, 42, high - 1, high):
        encoded = decoder.encode(codec, str(value).encode())
        assert len(encoded.data) == codec.width
        assert number(encoded) == value
    for text in (str(low - 1), str(high + 1), "9" * 30, "", "-", "+1", " 1", "1 ", "1_0", "1.0", "x", "0x1", "--1"):
        with pytest.raises(BadDataError):
            decoder.encode(codec, text.encode())


def test_unsigned(decoder: ModuleType) -> None:
    for value in (0, 1, 2**31, 2**32 - 1):
        assert number(decoder.encode(UINT32, str(value).encode()), signed=False) == value
    for text in (str(2**32), "-1", "-0", "", "1e3"):
        with pytest.raises(BadDataError):
            decoder.encode(UINT32, text.encode())


@pytest.mark.parametrize(
    "text",
    ["0", "-0", "1", "-1.5", "3.141592653589793", "1e+20", "1e-307", "1.7976931348623157e+308", "5e-324", "0.1"],
)
def test_double_precision(decoder: ModuleType, text: str) -> None:
    assert decoder.encode(FLOAT64, text.encode()).data == struct.pack("<d", float(text))


@pytest.mark.parametrize("text", ["0", "-0", "1.5", "0.1", "3.4028235e+38", "1e-45", "1.17549435e-38", "16777216"])
def test_real(decoder: ModuleType, text: str) -> None:
    assert decoder.encode(FLOAT32, text.encode()).data == struct.pack("<f", float(text))


def test_special_floats(decoder: ModuleType) -> None:
    for codec, layout in ((FLOAT32, "<f"), (FLOAT64, "<d")):
        assert decoder.encode(codec, b"Infinity").data == struct.pack(layout, math.inf)
        assert decoder.encode(codec, b"-Infinity").data == struct.pack(layout, -math.inf)
        assert math.isnan(struct.unpack(layout, decoder.encode(codec, b"NaN").data)[0])
        for text in (
            b"",
            b"nan",
            b"inf",
            b"infinity",
            b"+1",
            b"1.",
            b".5",
            b"1e",
            b"1_0",
            b" 1",
            b"1 ",
            b"0x1p3",
            b"1E5",
        ):
            with pytest.raises(BadDataError):
                decoder.encode(codec, text)
    for codec, text in ((FLOAT32, b"3.5e+38"), (FLOAT64, b"1e+309"), (FLOAT32, b"1e+999")):
        with pytest.raises(BadDataError):
            decoder.encode(codec, text)


def test_boolean(decoder: ModuleType) -> None:
    assert decoder.encode(BOOL, b"t") == Value(null=False, data=b"\1")
    assert decoder.encode(BOOL, b"f") == Value(null=False, data=b"\0")
    for text in (b"", b"true", b"1", b"T"):
        with pytest.raises(BadDataError):
            decoder.encode(BOOL, text)


@pytest.mark.parametrize(
    ("precision", "scale", "text"),
    [
        (1, 0, "9"),
        (9, 2, "-1234567.89"),
        (9, 9, "0.999999999"),
        (10, 2, "0.05"),
        (10, 2, "-0.05"),
        (18, 4, "99999999999999.9999"),
        (19, 0, "9999999999999999999"),
        (38, 10, "-9999999999999999999999999999.9999999999"),
        (76, 38, "99999999999999999999999999999999999999.99999999999999999999999999999999999999"),
        (76, 38, "-0.00000000000000000000000000000000000001"),
        (76, 0, "9" * 76),
        (5, 2, "1"),
        (5, 2, "1.5"),
        (5, 2, "1.500000"),
        (5, 0, "12.000"),
        (5, 2, "000123.40"),
        (5, 5, "0.00001"),
        (38, 2, "-0"),
        (38, 2, "0.000000"),
    ],
)
def test_numeric_that_fits(decoder: ModuleType, precision: int, scale: int, text: str) -> None:
    codec = decimal(precision, scale)
    encoded = decoder.encode(codec, text.encode())
    assert len(encoded.data) == codec.width
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)
    shift = scale + exponent
    magnitude = int("".join(map(str, digits)))
    expected = magnitude * 10**shift if shift >= 0 else magnitude // 10**-shift
    assert number(encoded) == (-expected if sign else expected)


@pytest.mark.parametrize(
    ("text", "nearest", "reason"),
    [
        ("NaN", 0, NAN),
        ("Infinity", 99999, INFINITY),
        ("-Infinity", -99999, INFINITY),
        ("1000", 99999, TOO_MANY_DIGITS),
        ("-1000", -99999, TOO_MANY_DIGITS),
        ("9" * 5000, 99999, TOO_MANY_DIGITS),
        ("1000.001", 99999, TOO_MANY_DIGITS),
        ("1.239", 123, TOO_MANY_DIGITS),
        ("-1.239", -123, TOO_MANY_DIGITS),
        ("0.001", 0, TOO_MANY_DIGITS),
        ("0." + "0" * 5000 + "1", 0, TOO_MANY_DIGITS),
    ],
)
def test_numeric_that_does_not_fit(decoder: ModuleType, text: str, nearest: int, reason: int) -> None:
    encoded = decoder.encode(decimal(5, 2), text.encode())
    assert encoded == Value(null=True, data=nearest.to_bytes(4, "little", signed=True), unfit=reason)


@pytest.mark.parametrize(
    "text", ["", "-", ".", "1.", ".5", "-.5", "+1", "1e5", "1,5", " 1", "nan", "inf", "--1", "1.2.3"]
)
def test_numeric_malformed(decoder: ModuleType, text: str) -> None:
    with pytest.raises(BadDataError):
        decoder.encode(decimal(10, 2), text.encode())


@pytest.mark.parametrize("precision", [1, 9, 10, 18, 19, 20, 37, 38, 39, 40, 57, 58, 75, 76])
def test_the_bounds_of_a_numeric(decoder: ModuleType, precision: int) -> None:
    most = 10**precision - 1
    for scale in (0, precision // 2, precision):
        codec = decimal(precision, scale)
        beyond = "1" + "0" * precision
        for text, nearest in (("Infinity", most), ("-Infinity", -most), (beyond, most), (f"-{beyond}", -most)):
            data = nearest.to_bytes(codec.width, "little", signed=True)
            reason = INFINITY if text.endswith("y") else TOO_MANY_DIGITS
            assert decoder.encode(codec, text.encode()) == Value(null=True, data=data, unfit=reason)
        whole, fraction = str(most)[: precision - scale] or "0", str(most)[precision - scale :]
        text = f"{whole}.{fraction}" if fraction else whole
        assert number(decoder.encode(codec, text.encode())) == most
        assert number(decoder.encode(codec, b"-" + text.encode())) == -most


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300, 16_383, 16_384, 70_000])
def test_text_and_bytea_carry_any_byte_and_length(decoder: ModuleType, length: int) -> None:
    raw = bytes(place * 7 % 256 for place in range(length))
    assert decoder.encode(STRING, raw).data == varint(length) + raw
    assert decoder.encode(BYTEA, b"\\x" + raw.hex().encode()).data == varint(length) + raw


@pytest.mark.parametrize("text", ["", "\\", "\\x0", "\\x0g", "x00", "\\X00", "\\000", "\\x 00"])
def test_bytea_malformed(decoder: ModuleType, text: str) -> None:
    with pytest.raises(BadDataError):
        decoder.encode(BYTEA, text.encode())


def test_uuid(decoder: ModuleType) -> None:
    value = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    high, low = value.int >> 64, value.int & (1 << 64) - 1
    assert decoder.encode(UUID, str(value).encode()).data == struct.pack("<QQ", high, low)
    assert decoder.encode(UUID, str(value).upper().encode()).data == struct.pack("<QQ", high, low)
    for text in (
        "",
        str(value)[:-1],
        str(value) + "0",
        str(value).replace("-", ""),
        str(value).replace("a", "g"),
        f"{{{value}}}",
    ):
        with pytest.raises(BadDataError):
            decoder.encode(UUID, text.encode())


def test_dates_are_those_of_the_calendar(decoder: ModuleType) -> None:
    for ordinal in range(1, date.max.toordinal(), 997):
        day = date.fromordinal(ordinal)
        assert number(decoder.encode(WIDE_DATE, day.isoformat().encode())) == (day - date(1970, 1, 1)).days
    for year in (1600, 1700, 1900, 1972, 2000, 2024):
        for day in (date(year, 2, 28), date(year, 3, 1), date(year, 12, 31)):
            assert number(decoder.encode(WIDE_DATE, str(day).encode())) == (day - date(1970, 1, 1)).days


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("0001-01-01", -719_162),
        ("0001-12-31 BC", -719_163),  # the day before: there is no year 0
        ("0001-02-29 BC", -719_163 - 306),  # 1 BC is a leap year
        ("4714-11-24 BC", -2_440_588),  # PostgreSQL's first day: Julian day 0
        ("5874897-12-31", 2_147_483_494 - 1 - 2_440_588),  # its last one: DATE_END_JULIAN - 1
        ("10000-01-01", 2_932_897),
        ("12000-02-29", (10_000 // 400) * 146_097 + 11_016),
    ],
)
def test_dates_beyond_pythons(decoder: ModuleType, text: str, days: int) -> None:
    assert number(decoder.encode(WIDE_DATE, text.encode())) == days


@pytest.mark.parametrize(
    ("text", "bound", "reason"),
    [
        ("1900-01-01", 0, 0),
        ("2299-12-31", 1, 0),
        ("1899-12-31", 0, OUT_OF_RANGE),
        ("2300-01-01", 1, OUT_OF_RANGE),
        ("infinity", 1, INFINITY),
        ("-infinity", 0, INFINITY),
        ("0044-03-15 BC", 0, OUT_OF_RANGE),
        ("5874897-12-31", 1, OUT_OF_RANGE),
    ],
)
def test_dates_take_the_nearest_bound(decoder: ModuleType, text: str, bound: int, reason: int) -> None:
    expected = SERVER.date32[bound].to_bytes(4, "little", signed=True)
    assert decoder.encode(DATE, text.encode()) == Value(null=False, data=expected, unfit=reason)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024",
        "2024-13-01",
        "2024-00-01",
        "2023-02-29",
        "1900-02-29",
        "2024-04-31",
        "2024-01-00",
        "2024-01-32",
        "0000-01-01",
        "999-01-01",
        "-2024-01-01",
        "2024-1-1",
        "2024-01-01 AD",
        "2024-01-01BC",
        "2024-01-01 ",
        "01/01/2024",
        "Infinity",
        "12345678-01-01",
    ],
)
def test_date_malformed(decoder: ModuleType, text: str) -> None:
    with pytest.raises(BadDataError):
        decoder.encode(DATE, text.encode())


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 34, 56, 789_000, tzinfo=UTC),
        datetime(2000, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_timestamps(decoder: ModuleType, moment: datetime) -> None:
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    text = f"{moment.year:04}-{moment:%m-%d %H:%M:%S}"
    if moment.microsecond:
        text += f".{moment.microsecond:06}".rstrip("0")
    assert number(decoder.encode(WIDE_TIMESTAMP, text.encode())) == micros
    assert number(decoder.encode(WIDE_TIMESTAMP, text.encode() + b"+00")) == micros


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01 05:30:00+05:30", 0),
        ("1969-12-31 16:00:00-08", 0),
        ("1970-01-01 00:00:00.5", 500_000),
        ("1970-01-01 00:00:00.000001-00:00:01", 1_000_001),
        ("0001-12-31 23:59:59.999999+00 BC", -719_162 * DAY_MICROS - 1),
        (
            "0044-03-15 12:00:00 BC",
            (date(357, 3, 15) - date(1970, 1, 1)).days * DAY_MICROS - 146_097 * DAY_MICROS + DAY_MICROS // 2,
        ),
        ("10000-01-01 00:00:00", 2_932_897 * DAY_MICROS),
    ],
)
def test_timestamp_forms(decoder: ModuleType, text: str, micros: int) -> None:
    assert number(decoder.encode(WIDE_TIMESTAMP, text.encode())) == micros


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("infinity", 1),
        ("-infinity", 0),
        ("0001-12-31 00:00:00 BC", 0),
        ("10000-01-01 00:00:00", 1),
        ("294276-12-31 23:59:59", 1),
        ("9999999-12-31 23:59:59", 1),
        ("4713-01-01 00:00:00 BC", 0),
        ("9999999-01-01 00:00:00 BC", 0),
        ("0001-01-01 00:00:00+00:00:01", 0),
    ],
)
def test_timestamps_take_the_nearest_bound(decoder: ModuleType, text: str, bound: int) -> None:
    expected = SERVER.datetime64[bound].to_bytes(8, "little", signed=True)
    reason = INFINITY if text.endswith("y") else OUT_OF_RANGE
    assert decoder.encode(TIMESTAMP, text.encode()) == Value(null=False, data=expected, unfit=reason)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-01-01",
        "2024-01-01T00:00:00",
        "2024-01-01 24:00:00",
        "2024-01-01 00:60:00",
        "2024-01-01 00:00:60",
        "2024-01-01 00:00:00.",
        "2024-01-01 00:00:00.1234567",
        "2024-01-01 00:00:00+",
        "2024-01-01 00:00:00+5",
        "2024-01-01 00:00:00+16",
        "2024-01-01 00:00:00+05:60",
        "2024-01-01 00:00:00+05:3",
        "2024-01-01 00:00:00Z",
        "2024-01-01 00:00:00 AD",
        "2024-02-30 00:00:00",
        "0000-01-01 00:00:00",
        "Infinity",
    ],
)
def test_timestamp_malformed(decoder: ModuleType, text: str) -> None:
    with pytest.raises(BadDataError):
        decoder.encode(TIMESTAMP, text.encode())


def test_time(decoder: ModuleType) -> None:
    for text, micros in (
        ("00:00:00", 0),
        ("00:00:00.000001", 1),
        ("12:34:56.7", 45_296_700_000),
        ("23:59:59.999999", DAY_MICROS - 1),
        ("24:00:00", DAY_MICROS),
    ):
        assert number(decoder.encode(TIME, text.encode())) == micros
    for text in (
        "",
        "24:00:01",
        "24:00:00.000001",
        "25:00:00",
        "12:60:00",
        "12:00:60",
        "1:00:00",
        "12:00",
        "12:00:00+00",
    ):
        with pytest.raises(BadDataError):
            decoder.encode(TIME, text.encode())


@pytest.mark.parametrize("codec", [INT16, FLOAT64, BOOL, decimal(40, 2), STRING, BYTEA, UUID, DATE, TIMESTAMP, TIME])
def test_null_is_the_types_zero(decoder: ModuleType, codec: Codec) -> None:
    assert decoder.encode(codec, None) == Value(null=True, data=bytes(codec.width or 1))


def test_an_error_never_shows_the_value(decoder: ModuleType) -> None:
    with pytest.raises(BadDataError) as caught:
        decoder.encode(INT32, b"secret")
    assert "secret" not in caught.value.message + caught.value.hint
    assert caught.value.hint
