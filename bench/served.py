"""A server for benchmarks: `adaptry serve` in a separate process, with its administrator's token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adaptry.registry.http import HttpRegistry


@dataclass(frozen=True)
class Served:
    """Its address, its administrator's token, and its process."""

    url: str
    token: str
    process: int

    @property
    def registry(self) -> HttpRegistry:
        return HttpRegistry(self.url, self.token)


@contextmanager
def served(data: Path, *options: str) -> Iterator[Served]:
    """Serves `data` with these options of `adaptry serve` during the block. Its list of base folders is next
    to `data`.
    """
    command = [sys.executable, "-m", "adaptry_cli", "serve", "--data", str(data), "--port", "0", *options]
    environment = {**os.environ, "ADAPTRY_HOME": str(data.with_name("home"))}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        try:
            yield Served(url, (data / "admin-token").read_text().strip(), process.pid)
        finally:
            process.terminate()
