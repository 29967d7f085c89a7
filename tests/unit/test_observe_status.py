from __future__ import annotations

import json

import pytest

from penstock.lsn import Lsn
from penstock.observe.status import Latencies, PipeStatus, Rate, TableStatus, as_json


def test_a_rate_counts_the_window_and_forgets_what_left_it() -> None:
    rate = Rate(window_seconds=5)
    for second in range(10):
        rate.add(100, float(second))
    assert rate.per_second(9.0) == pytest.approx(100)
    assert rate.per_second(14.1) == 0


def test_a_rate_that_has_just_begun_is_not_diluted_by_the_window() -> None:
    rate = Rate(window_seconds=5)
    rate.add(50, 100.0)
    rate.add(150, 101.9)
    assert rate.per_second(102.0) == pytest.approx(100)


def test_a_first_burst_counts_as_a_second_of_events() -> None:
    rate = Rate()
    rate.add(1000, 7.0)
    assert rate.per_second(7.0) == pytest.approx(1000)


def test_a_rate_without_events_is_zero() -> None:
    assert Rate().per_second(3.0) == 0


def test_a_rate_keeps_few_slots_however_many_events_come() -> None:
    rate = Rate(window_seconds=5)
    for step in range(100_000):
        rate.add(1, step / 1000)
    assert len(rate._slots) <= 21
    assert rate.per_second(100.0) == pytest.approx(1000, rel=0.06)


def test_latency_quantiles_are_of_the_newest_samples() -> None:
    latencies = Latencies(most=100)
    for _ in range(500):
        latencies.add(9999)
    for value in range(1, 101):
        latencies.add(float(value))
    assert len(latencies) == 100
    assert latencies.p50 == pytest.approx(51)
    assert latencies.p99 == pytest.approx(100)


def test_latencies_without_samples_say_so() -> None:
    assert Latencies().p50 is None
    assert Latencies().p99 is None


def test_a_source_clock_that_runs_ahead_gives_no_negative_latency() -> None:
    latencies = Latencies()
    latencies.add(-5)
    assert latencies.p50 == 0


def test_a_pipe_sums_and_finds_its_tables() -> None:
    status = PipeStatus(
        "shop",
        "running",
        tables=(
            TableStatus("public.a", "streaming", changes=3, changes_per_second=1.5, lag_seconds=0.2),
            TableStatus("public.b", "copying", changes=4, changes_per_second=2.5, lag_seconds=4.0),
        ),
        position=Lsn(1000),
        received=Lsn(1500),
    )
    assert (status.changes, status.changes_per_second) == (7, 4.0)
    assert (status.lag_bytes, status.lag_seconds) == (500, 4.0)
    assert status.table("public.b").state == "copying"
    with pytest.raises(KeyError):
        status.table("public.c")


def test_a_pipe_that_has_no_position_yet_reports_no_lag() -> None:
    assert PipeStatus("shop", "starting", received=Lsn(1 << 40)).lag_bytes == 0


def test_a_status_goes_through_json() -> None:
    status = PipeStatus(
        "shop",
        "running",
        tables=(TableStatus("public.a", "streaming", counters={"unfit.x.nan": 2}),),
        position=Lsn(0x1_0000_00FF),
    )
    back = json.loads(json.dumps(as_json(status)))
    assert back["position"] == "1/FF"
    assert back["tables"][0]["counters"] == {"unfit.x.nan": 2}
    assert back["latency_p50_ms"] is None
