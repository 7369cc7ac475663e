"""What the Dockerfile installs, installed here by the same lines, is a server that starts without torch, and a runner."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import urllib3

ROOT = Path(__file__).parents[2]
STAGES = {
    stage.split("\n")[0].rpartition(" AS ")[2]: stage
    for stage in re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text())[1:]
}

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first stage: a wheel of the tree."""
    folder = tmp_path_factory.mktemp("wheels")
    (line,) = re.findall(r"RUN (pip wheel .*) --wheel-dir /wheels \.", STAGES["wheel"])
    command = [sys.executable, "-m", *line.split(), "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def installed(target: str, wheels: Path, folder: Path) -> Path:
    """The programs of an image, in an environment of its own."""
    stage = STAGES[target]
    (extras,) = re.findall(r'"\$\(echo /wheels/\*\.whl\)\[(.*)\]"', stage)
    extras = extras.replace("${EXTRAS}", "".join(re.findall(r"ARG EXTRAS=(.*)", stage)))
    venv.create(folder, with_pip=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", f"{wheel}[{extras}]"], check=True)
    return folder / "bin"


def has(programs: Path, module: str) -> bool:
    seen = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([str(programs / "python"), "-c", seen], check=False).returncode == 0


def test_the_server_starts_from_what_its_image_installs_and_has_no_torch(
    wheels: Path, tmp_path: Path
) -> None:
    programs = installed("api", wheels, tmp_path / "venv")
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


def test_a_runner_starts_from_what_its_image_installs(wheels: Path, tmp_path: Path) -> None:
    programs = installed("runner", wheels, tmp_path / "venv")
    assert has(programs, "torch")
    command = [str(programs / "adaptry"), "work", "--once", "--data", str(tmp_path / "data")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, "runs up to 1 at once" in run.stderr) == (0, True), run.stderr
