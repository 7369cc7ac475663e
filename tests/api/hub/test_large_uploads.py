"""Uploads of a large adapter to a server of two processes, by every protocol: memory does not grow with the
size of the file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adaptry.testing.warm_python import WarmPython
from adaptry_api.testing import Server

from .uploads import LFS_CLIENT, TONE, XET_CLIENT, create, run_client

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc"),
]

MIB = 300
SERVE = """
import sys
from pathlib import Path
from adaptry_api.serve import serve
from adaptry_api.settings import ServerSettings
serve(ServerSettings(data=Path(sys.argv[1])), port=0, workers=2, \
announce=lambda started: print(started.url, flush=True))
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A server and the process that started its workers."""

    server: Server
    pid: int

    def peak(self) -> int:
        """The largest memory use that any of its workers ever had."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in children]
        return max(int(status.split("VmHWM:")[1].split()[0]) << 10 for status in statuses)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    data = tmp_path / "data"
    process = WarmPython([sys.executable, "-c", SERVE, str(data)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    server = Server(process.stdout.readline().strip(), data)
    try:
        create(server)
        yield Running(server, process.pid)
    finally:
        server.close()
        process.terminate()
        process.wait()
        process.stdout.close()


def test_memory_of_the_server_does_not_grow_with_uploads(running: Running, tmp_path: Path) -> None:
    send(running.server, tmp_path, 8)  # modules are loaded only once
    before = running.peak()
    send(running.server, tmp_path, MIB)
    assert running.peak() - before < 64 << 20


def send(server: Server, folder: Path, mib: int) -> None:
    """Sends two files of that size, one by each protocol."""
    for client in ([XET_CLIENT, TONE, "main"], [LFS_CLIENT, TONE]):
        path = folder / "weights"
        with path.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
        run = run_client(server, *client, str(path))
        assert run.returncode == 0, run.stderr
