"""WAL positions as PostgreSQL writes them."""

from __future__ import annotations

import pytest

from penstock.lsn import Lsn


@pytest.mark.parametrize(
    ("text", "number"),
    [("0/0", 0), ("0/1", 1), ("16/B374D848", 0x16_B374_D848), ("1/0", 1 << 32), ("FFFFFFFF/FFFFFFFF", 2**64 - 1)],
)
def test_round_trip(text: str, number: int) -> None:
    assert Lsn.parse(text) == number
    assert str(Lsn(number)) == text
    assert f"{Lsn(number)}" == repr(Lsn(number)) == text


def test_lower_case_and_leading_zeros_are_read() -> None:
    assert Lsn.parse("16/b374d848") == Lsn.parse("00000016/B374D848")


@pytest.mark.parametrize("text", ["", "/", "1", "1/", "/1", "123456789/0", "0/123456789", "x/0", "0/x", "1/2/3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Lsn.parse(text)


def test_it_is_a_number() -> None:
    assert Lsn(5) < Lsn(6)
    assert max(Lsn(5), 7) == 7
    assert f"{Lsn(0x16_B374_D848):>14s}" == "   16/B374D848"
    assert f"{Lsn(255):x}" == "ff"
