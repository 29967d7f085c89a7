# noqa: A005  (run as python -m benchmarks.profile, never imported by its bare name)
"""``python -m benchmarks.profile``: where Penstock's time goes while it drains a stream, or copies a table, into a server.

Says how much CPU each process and each of our threads took, which tells the bottleneck; then, with every public tool that is
there, which code took it: perf (compiled code and the kernel) and py-spy (all Python threads) from the stream's opening on,
cProfile (the main thread) from the start.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pstats
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import cpu
from benchmarks.pipe import Outcome, Pipe, pipe
from benchmarks.report import table
from benchmarks.scale import QUICK
from benchmarks.stage import Stage, say
from benchmarks.workload import CHANGED, Stream, empty_changed, one_transaction, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SAMPLES_PER_SECOND = 499
SAMPLE_SECONDS = 0.2
COPY = "copy"


def main() -> int:
    """Profile what was asked for, once a tool."""
    options = _options()
    scale = replace(QUICK, name="profile", changes=options.changes)
    with Stage(scale, runs=1) as stage:
        for tool in options.tool:
            if options.stream == COPY:
                _profile_copy(stage, one_transaction(options.changes), tool, options.top)
            else:
                stream = next(each for each in streams(scale) if each.name == options.stream)
                _profile_stream(stage, stream, tool, options.top)
    return 0


def _options() -> argparse.Namespace:
    there = [name for name, is_there in _THERE.items() if is_there()]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description="Where the time goes.")
    parser.add_argument("--stream", choices=("inserts", "one", "mix", COPY), default="inserts")
    parser.add_argument("--changes", type=int, default=300_000)
    parser.add_argument("--tool", action="append", choices=list(_TOOLS), help=f"all that are there: {', '.join(there)}")
    parser.add_argument("--top", type=int, default=25, help="lines to show")
    options = parser.parse_args()
    options.tool = options.tool or there
    return options


def _profile_stream(stage: Stage, stream: Stream, tool: str, top: int) -> None:
    print(f"\n# {tool}: {stream.title}, {stream.changes:,} changes\n")
    empty_changed(stage.connection)
    with pipe(stage, f"profile_{tool.replace('-', '_').lower()}", CHANGED, stage.destination) as made:
        made.run_once()
        say("making the changes")
        stream.make(stage.connection)
        outcome = Threads(made).watch(lambda: _TOOLS[tool](made, stage.wal_end(), top))
    print(f"\n{stream.changes / outcome.stream_seconds:,.0f} changes/s while being profiled")


def _profile_copy(stage: Stage, rows: Stream, tool: str, top: int) -> None:
    print(f"\n# {tool}: copy of {rows.changes:,} rows\n")
    empty_changed(stage.connection)
    rows.make(stage.connection)
    stage.connection.execute(f"vacuum (freeze, analyze) {CHANGED}")
    with pipe(stage, f"profile_{tool.replace('-', '_').lower()}", CHANGED, stage.destination) as made:
        outcome = Threads(made).watch(lambda: _TOOLS[tool](made, "", top))
    seconds = outcome.at("table copied") - outcome.at("stream open")
    print(f"\n{rows.changes / seconds:,.0f} rows/s while being profiled")


class Threads:
    """CPU seconds of a pipe's threads, as last seen before it ended."""

    def __init__(self, made: Pipe) -> None:
        self._lock = made.home / f"{made.name}.lock"  # it holds the process id while the pipe runs
        self._ended = threading.Event()
        self._found: dict[str, float] = {}
        self._pid = 0

    def watch(self, work: Callable[[], Outcome]) -> Outcome:
        """Run ``work``, then print the processes' and the threads' CPU."""
        looker = threading.Thread(target=self._look, daemon=True)
        looker.start()
        try:
            outcome = work()
        finally:
            self._ended.set()
            looker.join()
        ours = sum(self._found.values())
        rows = [
            ("Penstock, from its start", "", f"{ours:.2f}"),
            ("PostgreSQL, from the stream's opening", "", f"{outcome.ends.postgres_cpu:.2f}"),
        ]
        rows.append(("ClickHouse, likewise", "", f"{outcome.ends.clickhouse_cpu:.2f}"))
        for name, used in sorted(self._found.items(), key=lambda each: -each[1]):
            if used >= 0.05:
                rows.append(
                    ("Penstock", "main thread" if name.startswith(f"{self._pid} ") else f"thread {name}", f"{used:.2f}")
                )
        print("\n" + table(("process", "thread", "CPU seconds"), rows))
        return outcome

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            try:
                self._pid = json.loads(self._lock.read_text())["pid"]
            except (OSError, ValueError):
                continue
            if found := cpu.thread_seconds(self._pid):
                self._found |= found


def _attached(made: Pipe, end: str, command: Sequence[str]) -> Outcome:
    """Run the pipe; a profiler looks at it from the stream's opening to the end."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        return made.run_once(
            end, opened=lambda pid: started.append(subprocess.Popen([*command, str(pid)], stdout=subprocess.DEVNULL))
        )
    finally:
        for each in started:
            try:
                each.wait(30)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()


def _perf(made: Pipe, end: str, top: int) -> Outcome:
    data = str(made.home / "perf.data")
    outcome = _attached(made, end, ["perf", "record", "-q", "-F", str(SAMPLES_PER_SECOND), "-o", data, "-p"])
    for keys in ("dso", "symbol,dso"):
        done = subprocess.run(
            ["perf", "report", "-i", data, "--stdio", "-q", "--sort", keys, "--percent-limit", "0.5"],
            check=True,
            capture_output=True,
            text=True,
        )
        print("\n".join(line.rstrip(" -") for line in done.stdout.strip().splitlines()[:top]), "\n")
    return outcome


def _py_spy(made: Pipe, end: str, top: int) -> Outcome:
    stacks = made.home / "stacks"
    outcome = _attached(
        made, end, ["py-spy", "record", "--rate", "200", "--format", "raw", "--output", str(stacks), "--pid"]
    )
    leaves: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        leaves[stack.rpartition(";")[2]] += int(count)
    whole = leaves.total()
    print("\n".join(f"{count / whole:6.1%}  {leaf}" for leaf, count in leaves.most_common(top)))
    return outcome


def _cprofile(made: Pipe, end: str, top: int) -> Outcome:
    stats = str(made.home / "stats")
    outcome = made.run_once(end, [sys.executable, "-m", "cProfile", "-o", stats, "-m", "penstock"])
    pstats.Stats(stats).strip_dirs().sort_stats("tottime").print_stats(top)
    return outcome


_TOOLS: dict[str, Callable[[Pipe, str, int], Outcome]] = {"perf": _perf, "py-spy": _py_spy, "cProfile": _cprofile}
_THERE: dict[str, Callable[[], bool]] = {
    "perf": lambda: shutil.which("perf") is not None,
    "py-spy": lambda: shutil.which("py-spy") is not None,
    "cProfile": lambda: importlib.util.find_spec("cProfile") is not None,
}


if __name__ == "__main__":
    sys.exit(main())
