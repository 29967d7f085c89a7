"""``python -m benchmarks``: measure, print the tables, write the JSON.

Ends with 1 when something could not be measured; a missed target is a result, not a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import by_type, copying, decoding, latency, memory, report, streaming, updating
from benchmarks.scale import FULL, QUICK
from benchmarks.stage import Stage
from penstock.decode import implementation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.report import Target
    from benchmarks.stage import Sample

GROUPS = {
    "copy": copying,
    "stream": streaming,
    "updates": updating,
    "latency": latency,
    "memory": memory,
    "decode": decoding,
    "types": by_type,
}

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def main() -> int:
    """Run what was asked for."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    began = time.time()
    with Stage(QUICK if options.quick else FULL, options.runs or (1 if options.quick else 3)) as stage:
        for name in options.only:
            GROUPS[name].measure(stage)
        samples, about = stage.samples, _about(stage, began)
    targets = [target for name in options.only for target in GROUPS[name].targets(samples)]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report.as_json(samples, targets, about), indent=1, ensure_ascii=False) + "\n")
    text = _as_text(options.only, samples, targets, about)
    print(text)
    if options.into:
        _put_into(options.into, text)
    return 1 if any(sample.error for sample in samples) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure Penstock; docs/benchmarks.md explains the figures."
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and one run: does everything work?")
    parser.add_argument("--only", type=_groups, default=list(GROUPS), metavar="A,B", help=f"some of {','.join(GROUPS)}")
    parser.add_argument("--runs", type=int, default=0, help="how often to measure each (3, or 1 with --quick)")
    parser.add_argument(
        "--json", type=Path, default=Path("results/bench.json"), metavar="FILE", help="where to write the figures"
    )
    parser.add_argument(
        "--into", type=Path, metavar="PAGE", help=f"put the tables between the lines {BEGIN} and {END} of a page"
    )
    return parser.parse_args()


def _groups(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in GROUPS:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(GROUPS)}")
    return names


def _about(stage: Stage, began: float) -> dict[str, Any]:
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "when": time.strftime("%F %T UTC", time.gmtime(began)),
        "minutes": round((time.time() - began) / 60, 1),
        "scale": stage.scale.name,
        "runs": stage.runs,
        "machine": f"{os.cpu_count()} cores{f' of {model[0]}' if model else ''}, {memory_kb / 2**20:.0f} GiB, {platform.machine()}",
        "versions": {**stage.versions, "Python": platform.python_version(), "decoder": implementation},
    }


def _as_text(names: Sequence[str], samples: Sequence[Sample], targets: Sequence[Target], about: dict[str, Any]) -> str:
    """The report, which is Markdown too."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    runs = f"{about['runs']} run{'s' if about['runs'] != 1 else ''}"
    pieces = [
        f"{about['when']}: {about['machine']}; {versions}; scale {about['scale']}, {runs}, {about['minutes']} minutes."
    ]
    pieces += [f"### {name.capitalize()}\n\n{GROUPS[name].report(samples)}" for name in names]
    if about["scale"] == QUICK.name:
        pieces.append("These sizes only show that everything works: the figures, and what they miss, mean nothing.")
    pieces.append(f"### Targets\n\n{report.targets_table(targets)}")
    if failed := report.failures(samples):
        pieces.append("\n".join(["### Could not be measured\n", *failed]))
    return "\n\n".join(pieces)


def _put_into(page: Path, text: str) -> None:
    """Replace what stands between the two marks. Raises ValueError when they are not there."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


if __name__ == "__main__":
    sys.exit(main())
