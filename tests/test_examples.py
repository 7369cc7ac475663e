"""Every example runs unchanged, in an empty folder, and prints nothing on stderr (except messages of
libraries that it uses).
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook" / "adaptry.ipynb"
LIBRARIES_TALK = ("training",)
"""transformers tells of its own deprecated names and of what is not installed."""

SCRIPTS = [
    script
    for script in sorted((Path(__file__).parents[1] / "examples").glob("*/*.py"))
    if script.parent.name not in ("topology", "serving")  # run by tests/topology and tests/engines
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    strict = [] if script.parent.name in LIBRARIES_TALK else ["-W", "error"]
    command = [sys.executable, *strict, str(script)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert not strict or run.stderr == ""
    assert run.stdout


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    """It runs as with `jupyter run`, and every displayed value also has an HTML form."""
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with warnings.catch_warnings():  # Jupyter's own messages
        warnings.simplefilter("ignore")
        # Sockets in a folder: Jupyter chooses TCP ports that others may take before the kernel binds them.
        sockets = Config(KernelManager={"transport": "ipc", "ip": str(tmp_path / "kernel")})
        place = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, config=sockets, timeout=300, resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    tables = [output for output in outputs if "<table>" in output.get("data", {}).get("text/html", "")]
    assert len(tables) >= 8
    assert not any(cell.get("outputs") for cell in nbformat.read(NOTEBOOK, as_version=4).cells)
