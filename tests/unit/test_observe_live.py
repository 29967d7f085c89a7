from __future__ import annotations

import io
from itertools import count

import pytest
from rich.console import Console

from penstock.lsn import Lsn
from penstock.observe import words
from penstock.observe.live import LiveView
from penstock.observe.status import PipeStatus, TableStatus

COPYING = TableStatus(
    "public.orders",
    "copying",
    rows_copied=1_240_000,
    rows_estimated=2_500_000,
    seconds_left=125,
    changes_per_second=5230,
    lag_seconds=12.2,
)
FAILED = TableStatus(
    "public.audit", "failed", last_error="public.audit has neither a primary key nor REPLICA IDENTITY FULL"
)
WAITING = TableStatus("public.items", "waiting", note="waits for a transaction of process 4242, open for 3 minutes")


def drawn(status: PipeStatus, width: int, height: int = 40) -> str:
    out = io.StringIO()
    console = Console(width=width, height=height, file=out)
    console.print(LiveView(console, clock=count().__next__).render(status))
    return out.getvalue()


def pipe(*tables: TableStatus) -> PipeStatus:
    return PipeStatus(
        "shop",
        "running",
        tables=tables,
        position=Lsn(0x1B374D848),
        received=Lsn(0x1B374D848 + 2048),
        latency_p50_ms=42.4,
        latency_p99_ms=1234,
    )


@pytest.mark.parametrize("width", [80, 140])
def test_everything_that_matters_is_shown_and_fits(width: int) -> None:
    text = drawn(pipe(COPYING, FAILED, WAITING), width)
    squeezed = " ".join(text.replace("│", " ").split())
    for expected in (
        "shop",
        "running",
        "1/B374D848",
        "2.00 kB",
        "p50 42 ms",
        "p99 1.2 s",
        "orders",
        "copying",
        "1.24M/2.50M",
        "2:05",
        "5.23k",
        "12 s",
    ):
        assert expected in squeezed, expected
    assert "public.audit has neither a primary key nor REPLICA IDENTITY FULL" in squeezed
    assert "process 4242" in squeezed
    assert max(len(line) for line in text.splitlines()) <= width


def test_the_copy_gives_its_columns_back() -> None:
    done = TableStatus("public.orders", "streaming", rows_copied=20, rows_estimated=20, changes=12345)
    text = drawn(pipe(done), 80)
    assert "12.3k" in text
    assert "left" not in text


def test_many_tables_fit_the_height_and_the_troubled_ones_are_among_them() -> None:
    many = [TableStatus(f"public.t{number}", "streaming", changes_per_second=number) for number in range(200)]
    many[3] = TableStatus("public.t3", "failed", last_error="refused")
    text = drawn(pipe(*many), 100, height=24)
    assert len(text.splitlines()) <= 24
    assert "t3 " in text
    assert "t199" in text
    assert "and 190 more tables" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (950, "950"),
        (999, "999"),
        (1000, "1.00k"),
        (12_400, "12.4k"),
        (999_600, "1.00M"),
        (3_050_000, "3.05M"),
        (2e12, "2.00T"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert words.count(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (1023, "1.00 kB"), (1536, "1.50 kB"), (5 << 30, "5.00 GB")])
def test_sizes(value: float, text: str) -> None:
    assert words.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.31, "0.3 s"), (12.2, "12 s"), (59.6, "1:00"), (125, "2:05"), (7800, "2 h 10 min"), (400_000, "4 days")],
)
def test_durations(value: float, text: str) -> None:
    assert words.duration(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "–"), (0.4, "0.4"), (9.96, "10.0"), (120.4, "120"), (5230, "5.23k")])
def test_rates(value: float, text: str) -> None:
    assert words.rate(value) == text


def test_names_are_shown_on_one_line_whatever_is_in_them() -> None:
    odd = TableStatus("s.tab\tline\n\x1b[31m\udce9 [bold]日本", "failed", last_error="a\nb")
    text = drawn(pipe(odd), 140)
    assert r"tab\tline\n\x1b[31m\xe9 [bold]日本" in text
    assert r"a\nb" in text
    text.encode()
