"""Docker's registry (Debian: docker-registry), on a port that the system chooses, with a separate folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("docker-registry", "skopeo")
_MADE = Path(__file__).parents[2] / ".venvs" / "oci"  # where `make test-slow` unpacks them
_PATH = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_MADE / 'usr' / 'bin'}"
_FOUND = {program: shutil.which(program, path=_PATH) for program in PROGRAMS}
_CONFIG = """
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:0", secret: tests}}
{auth}
"""
_SECONDS = 60
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")

needed = pytest.mark.skipif(
    None in _FOUND.values(),
    reason=f"needs {' and '.join(PROGRAMS)}: apt-get install {' '.join(PROGRAMS)}",
)


@contextmanager
def running(folder: Path, auth: str = "") -> Iterator[str]:
    """Runs the registry; yields its address. `auth`: a line of its config."""
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(folder=folder, auth=auth))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([str(_FOUND["docker-registry"]), "serve", config], stdout=log, stderr=log)
    try:
        yield _address(server, folder / "log")
    finally:
        server.kill()
        server.wait()


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    """Its address, once it has printed it."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if found := _LISTENING.search(log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"docker-registry did not listen: {log.read_text()[-500:]}")


def skopeo(*words: str | Path) -> str:
    libraries = os.pathsep.join(map(str, _MADE.glob("usr/lib/*-linux-gnu")))
    return subprocess.run(
        [
            str(_FOUND["skopeo"]),
            "--insecure-policy",
            *words,
        ],  # Debian keeps a policy in /etc, from another package
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | ({"LD_LIBRARY_PATH": libraries} if libraries else {}),
    ).stdout
