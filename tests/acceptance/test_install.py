"""Installation as a user does it, on a machine without a C compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT = shutil.ignore_patterns(
    ".git", ".venv", ".servers", "*.so", "*.c", "build", "*.egg-info", "__pycache__", ".*_cache", "results"
)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PENSTOCK_DECODER")}
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, timeout=800, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_without_a_compiler_it_installs_and_works_on_the_reference_decoder(tmp_path: Path) -> None:
    sources, venv = tmp_path / "sources", tmp_path / "venv"
    shutil.copytree(ROOT, sources, ignore=BUILT)
    run(sys.executable, "-m", "venv", venv)
    run(venv / "bin" / "pip", "install", "--quiet", f"{sources}[demo]", CC="/bin/false")
    penstock = venv / "bin" / "penstock"
    assert "python decoder" in run(penstock, "--version").stdout
    summary = json.loads(run(penstock, "demo", "--seconds", "5", "--json").stdout)
    assert summary["equal"] is True
