"""The topology of compose.yaml as processes, which tests start, inspect and kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any

import urllib3

from adaptry.registry.http import HttpRegistry

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "topology"
_START_SECONDS = 120
_TIMEOUT = 60.0


class TopologyProcesses:
    """A running topology. `url` is the balancer's."""

    def __init__(self, url: str, folder: Path, process: subprocess.Popen[str]) -> None:
        self.url = url
        self.folder = folder
        self.process = process
        self.admin = (folder / "secrets" / "admin-token").read_text().strip()

    def registry(self) -> HttpRegistry:
        return HttpRegistry(self.url, self.admin)

    def state(self) -> dict[str, dict[str, Any]]:
        """The state of each service. (`Any`: JSON.)"""
        return json.loads((self.folder / "run" / "state.json").read_text())  # type: ignore[no-any-return]

    def url_of(self, service: str) -> str:
        return f"http://{self.state()[service]['address']}:8750"

    def hurt(self, service: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal, and waits until the process is gone and its successor is healthy."""
        before = self.state()[service]
        os.kill(before["pid"], number)
        self.wait(lambda state: state[service]["starts"] > before["starts"] and is_well(state[service]))

    def wait(self, until: Callable[[dict[str, dict[str, Any]]], bool]) -> None:
        """Waits for this state. If the topology does not reach it, the test fails with the logs."""
        end = time.monotonic() + _TIMEOUT
        while not until(self.state()):
            assert time.monotonic() < end, f"{self.state()}\n{logs(self.folder)}"
            time.sleep(0.05)

    def requests(self, service: str) -> int:
        """The number of requests under /api/v1 that a server has answered."""
        text = urllib3.request("GET", f"{self.url_of(service)}/metrics").data.decode()
        lines = [line for line in text.splitlines() if line.startswith("adaptry_requests_total{")]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if 'route="/api/v1' in line)


def is_well(service: dict[str, Any]) -> bool:
    return service["health"] in ("healthy", "running")


def logs(folder: Path) -> str:
    files = sorted((folder / "run" / "logs").glob("*.log"))
    return "\n".join(f"== {file.stem}\n{file.read_text(errors='replace')[-1500:]}" for file in files)


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for a topology, deleted at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="adaptry-topology-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # PostgreSQL runs as another user, and must find its data
        yield Path(name)


@contextmanager
def topology(folder: Path, *options: str) -> Iterator[TopologyProcesses]:
    """Starts all processes, and ends them with the block; stored data stay in the folder."""
    secrets = folder / "secrets"
    subprocess.run(
        [sys.executable, str(SCRIPTS / "make_secrets.py"), str(secrets)], check=True, capture_output=True
    )
    command = [sys.executable, str(SCRIPTS / "run.py"), str(folder / "run"), *options]
    environment = {**os.environ, "SECRETS": str(secrets)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        too_long = Timer(_START_SECONDS, process.terminate)
        too_long.start()
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            too_long.cancel()
            assert url, logs(folder)
            yield TopologyProcesses(url, folder, process)
        finally:
            too_long.cancel()
            process.terminate()
            _hasten(folder / "run" / "state.json")


def _hasten(state: Path) -> None:
    """Kills the processes: a clean shutdown takes seconds, and the data are no longer needed."""
    for service in json.loads(state.read_text()).values() if state.exists() else ():
        if service["pid"]:
            with suppress(ProcessLookupError):
                os.kill(service["pid"], signal.SIGKILL)
