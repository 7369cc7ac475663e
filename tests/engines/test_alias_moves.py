"""An alias moves under load on real engines: no request fails, and no response comes from an old version or
from a mixture.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ..formats.other_environment import OtherEnvironment

ROOT = Path(__file__).parents[2]
VLLM = OtherEnvironment("vllm", "../vllm/vllm_library.py").marks
MISTRALRS = OtherEnvironment("mistralrs", "../engines/mistralrs_server.py").marks
LLAMACPP = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="no llama.cpp: pip install xllamacpp"),
]


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("vllm-proxy", marks=VLLM),
        pytest.param("vllm-plugin", marks=VLLM),
        pytest.param("mistralrs", marks=MISTRALRS),
        pytest.param("llamacpp-proxy", marks=LLAMACPP),
    ],
)
def test_no_answer_fails_or_is_stale_while_an_alias_moves(engine: str) -> None:
    """The benchmark, with a tenth of its requests and moves."""
    command = [sys.executable, "bench/alias_moves.py", engine, "--requests", "100", "--moves", "5"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "0 failed, 0 stale, 0 mixed" in run.stdout
