"""Every example runs as it stands, in a folder of its own, and says nothing on stderr, unless a library that
it uses does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES_TALK = ("training",)
"""transformers tells of its own deprecated names and of what is not installed."""

SCRIPTS = [
    script
    for script in sorted((Path(__file__).parents[1] / "examples").glob("*/*.py"))
    if script.parent.name != "topology"  # which runs until it is told to stop: tests/topology does
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    strict = [] if script.parent.name in LIBRARIES_TALK else ["-W", "error"]
    command = [sys.executable, *strict, str(script)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert not strict or run.stderr == ""
    assert run.stdout
