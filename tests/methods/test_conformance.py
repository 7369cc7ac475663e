"""The complete corpus: for every method and every family that supports it, our merge equals PEFT's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "conformance.py"


@pytest.mark.heavy
def test_every_case_of_the_corpus_gives_the_expected_result(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, BENCH, "--cache", tmp_path], capture_output=True, text=True, check=False
    )
    wrong = [line for line in run.stdout.splitlines() if line.startswith("wrong")]
    assert (wrong, run.returncode) == ([], 0), run.stderr
