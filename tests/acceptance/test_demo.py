"""``penstock demo`` as a newcomer runs it: it proves that both sides are equal, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = ["public.customers", "public.products", "public.orders", "public.order_items"]
PENSTOCK = [sys.executable, "-m", "penstock"]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files that the demo's PostgreSQL can enter, whoever runs the tests."""
    with tempfile.TemporaryDirectory(prefix="penstock-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch), "PENSTOCK_HOME": str(scratch / "home")}


def left_behind(scratch: Path) -> list[str]:
    """Files, and processes that name them."""
    processes = [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if str(scratch) in " ".join(process.info["cmdline"] or [])
    ]
    return [*processes, *(path.name for path in scratch.iterdir())]


def asked(seen: str) -> str:
    """The answer to the question that the demo proposes."""
    (proposed,) = re.findall(r"PENSTOCK_HOME=(\S+) penstock (query .*)", seen)
    done = subprocess.run(
        [*PENSTOCK, *shlex.split(proposed[1]), "--format", "TabSeparated"],
        env={**os.environ, "PENSTOCK_HOME": proposed[0]}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_sides_are_equal_after_a_live_workload(scratch: Path) -> None:
    done = subprocess.run(
        [*PENSTOCK, "demo", "--seconds", "8", "--json"],
        env=environment(scratch), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["equal"] is True
    assert [(each["table"], each["difference"]) for each in summary["tables"]] == [(name, "") for name in TABLES]
    assert all(each["rows"] >= 2_000 for each in summary["tables"])
    workload = summary["workload"]
    for kind in ("inserted", "updated", "rekeyed", "deleted", "rolled_back"):
        assert workload[kind] > 0, workload
    assert summary["rows_copied"] > 300_000
    assert summary["changes"] > 0
    assert summary["commit_to_found_ms"]["samples"] > 0
    assert left_behind(scratch) == []


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.slow), pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_ends_it_in_order(scratch: Path, number: signal.Signals) -> None:
    command = [*PENSTOCK, "demo", "--seconds", "0"]
    with subprocess.Popen(
        command, env=environment(scratch), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        seen = counted = ""
        for line in process.stdout:
            seen += line
            if "4 streaming" in line and not counted:
                counted = asked(seen)
                process.send_signal(number)
    assert process.returncode == 0, seen
    assert "Both sides are equal." in seen
    assert int(counted) >= 100_000
    assert left_behind(scratch) == []
