"""A pipe's status as Prometheus reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.batch import UNFIT
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from penstock.observe.status import PipeStatus, TableStatus

LOOPBACK = "127.0.0.1"
_ADDRESS = re.compile(r"(?:(?P<host>[^\s\[\]:]+|\[[0-9a-fA-F:]+\]):)?(?P<port>\d{1,5})")

_OF_TABLES: tuple[
    tuple[type[GaugeMetricFamily] | type[CounterMetricFamily], str, str, Callable[[TableStatus], float]], ...
] = (
    (
        GaugeMetricFamily,
        "penstock_table_lag_bytes",
        "WAL of the table that is received and not durable in ClickHouse yet.",
        lambda table: table.lag_bytes,
    ),
    (
        GaugeMetricFamily,
        "penstock_table_lag_seconds",
        "Age of the table's oldest change that is not durable yet.",
        lambda table: table.lag_seconds,
    ),
    (CounterMetricFamily, "penstock_rows_copied", "Rows that the copy has brought.", lambda table: table.rows_copied),
    (
        CounterMetricFamily,
        "penstock_changes",
        "Changes that have become durable since the process started.",
        lambda table: table.changes,
    ),
)


class PipeCollector(Collector):
    """Asks for the status when it is scraped."""

    def __init__(self, status: Callable[[], PipeStatus]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """Every family, in the order in which docs/monitoring.md has them."""
        status = self._status()
        yield from _of_pipe(status)
        yield from _of_tables(status)


def serve(address: str, status: Callable[[], PipeStatus]) -> str:
    """Serve ``/metrics`` in a thread of its own; where. Raises ConfigError for an address that cannot be used.

    ``address`` is a port, on loopback then, or ``host:port``.
    """
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise ConfigError(f'"{address}" is no address for metrics', hint="Give a port, or HOST:PORT.")
    host = (found["host"] or LOOPBACK).strip("[]")
    registry = CollectorRegistry()
    registry.register(PipeCollector(status))
    try:
        server, _ = start_http_server(int(found["port"]), host, registry)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"metrics cannot be served at {address}: {error}", hint="Choose another port.") from None
    port = server.server_port
    return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"


def _of_pipe(status: PipeStatus) -> Iterator[Metric]:
    state = GaugeMetricFamily("penstock_pipe_state", "1, with the state as a label.", labels=("pipe", "state"))
    state.add_metric((status.name, status.state), 1)
    yield state
    for name, about, value in (
        ("penstock_lag_bytes", "WAL that is received and not durable in ClickHouse yet.", status.lag_bytes),
        ("penstock_lag_seconds", "Age of the oldest change that is not durable yet.", status.lag_seconds),
        ("penstock_slot_retained_bytes", "WAL that the slot keeps at the source.", status.retained_bytes),
    ):
        gauge = GaugeMetricFamily(name, about, labels=("pipe",))
        if value is not None:
            gauge.add_metric((status.name,), value)
        yield gauge
    latency = GaugeMetricFamily(
        "penstock_latency_seconds", "From the commit at the source until it is readable.", labels=("pipe", "quantile")
    )
    for quantile, milliseconds in (("0.5", status.latency_p50_ms), ("0.99", status.latency_p99_ms)):
        if milliseconds is not None:
            latency.add_metric((status.name, quantile), milliseconds / 1000)
    yield latency


def _of_tables(status: PipeStatus) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "penstock_table_state", "1, with the state as a label.", labels=("pipe", "table", "state")
    )
    for table in status.tables:
        state.add_metric((status.name, table.full_name, table.state), 1)
    yield state
    for kind, name, about, value in _OF_TABLES:
        family = kind(name, about, labels=("pipe", "table"))
        for table in status.tables:
            family.add_metric((status.name, table.full_name), value(table))
        yield family
    unfit = CounterMetricFamily(
        "penstock_unfit_values",
        "Values that their ClickHouse type could not hold.",
        labels=("pipe", "table", "column", "reason"),
    )
    events = CounterMetricFamily(
        "penstock_events", "What else was not ordinary, such as values read again.", labels=("pipe", "table", "what")
    )
    for table in status.tables:
        for name, count in table.counters.items():
            if name.startswith(UNFIT):
                column, _, reason = name.removeprefix(UNFIT).rpartition(": ")
                unfit.add_metric((status.name, table.full_name, column, reason), count)
            else:
                events.add_metric((status.name, table.full_name, name), count)
    yield unfit
    yield events
