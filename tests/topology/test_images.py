"""The packages that the Dockerfile installs, installed by the same commands, are a server that starts without
torch, and a runner.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = {
    stage.split("\n")[0].rpartition(" AS ")[2]: stage for stage in re.split(r"(?m)^FROM ", DOCKERFILE)[1:]
}

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter of the image: the pinned packages need not exist for another one."""
    (version,) = re.findall(r"ARG PYTHON=python:(\d+\.\d+)", DOCKERFILE)
    for candidate in (sys.executable, shutil.which(f"python{version}") or sys.executable):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        run = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        if run.stdout.strip() == version:
            return candidate
    pytest.skip(f"needs Python {version}, as the images have it: put python{version} on PATH")


@pytest.fixture(scope="module")
def wheels(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first stage: a wheel of the tree."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = environment(python, tmp_path_factory.mktemp("builder"))
    execute(STAGES["wheel"], pip, {"--wheel-dir /wheels": f"--wheel-dir {folder}"})
    return folder


def environment(python: str, folder: Path) -> Path:
    """The programs of a fresh environment."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    return folder / "bin"


def execute(stage: str, programs: Path, places: dict[str, str]) -> None:
    """Runs the lines of a stage that call pip, unchanged except for paths."""
    for command in re.findall(r"pip (?:install|wheel) [^\n&]*", stage):
        for there, here in places.items():
            command = command.replace(there, here)
        # Packages that this machine's pip prefers to those of the index would not have the digests.
        environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PIP_FIND_LINKS": ""}
        run = subprocess.run(
            ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, env=environ
        )
        assert run.returncode == 0, run.stderr


def installed(target: str, python: str, wheels: Path, folder: Path) -> Path:
    """The programs of an image, in a separate environment."""
    stage = STAGES[target]
    programs = environment(python, folder)
    chosen = "".join(re.findall(r"ARG REQUIREMENTS=(.*)", stage))
    places = {"${REQUIREMENTS}": chosen, "/requirements/": "requirements/", "/wheels/": f"{wheels}/"}
    execute(stage, programs, places)
    return programs


def has(programs: Path, module: str) -> bool:
    seen = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([str(programs / "python"), "-c", seen], check=False).returncode == 0


def test_the_server_starts_with_its_images_packages_and_without_torch(
    python: str, wheels: Path, tmp_path: Path
) -> None:
    programs = installed("api", python, wheels, tmp_path / "venv")
    assert not has(programs, "torch")
    assert all(has(programs, module) for module in ("psycopg", "boto3", "uvicorn"))
    command = [str(programs / "adaptry"), "serve", "--port", "0", "--data", str(tmp_path / "data")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as server:
        try:
            assert server.stdout
            url = server.stdout.readline().strip()
            assert urllib3.request("GET", f"{url}/readyz").status == 200
        finally:
            server.terminate()
    size = sum(path.stat().st_size for path in (tmp_path / "venv").rglob("*") if path.is_file())
    assert size < 400 << 20, f"{size >> 20} MiB"


def test_a_runner_starts_with_its_images_packages(python: str, wheels: Path, tmp_path: Path) -> None:
    programs = installed("runner", python, wheels, tmp_path / "venv")
    assert has(programs, "torch")
    command = [str(programs / "adaptry"), "work", "--once", "--data", str(tmp_path / "data")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, "runs up to 1 at once" in run.stderr) == (0, True), run.stderr
