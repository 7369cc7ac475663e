"""Every example runs as it stands, in a folder of its own, and says nothing on stderr."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = [
    script
    for script in sorted((Path(__file__).parents[1] / "examples").glob("*/*.py"))
    if script.parent.name != "topology"  # which runs until it is told to stop: tests/topology does
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(script)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout
