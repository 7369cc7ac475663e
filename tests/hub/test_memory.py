"""The server's memory does not grow with the file size while a client uploads 300 MB."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .checklist_server import environment, large_lora, serving
from .lines import CLIENTS, Client

MB = 1 << 20
SENT = 300
SEND = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(sys.argv[1])
api.upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2])
"""
WAYS = [client for client in CLIENTS if client.name in ("newest", "no-xet")]


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("client", WAYS, ids=lambda client: client.name)
def test_an_upload_of_300_mb_keeps_the_server_small(client: Client, tmp_path: Path) -> None:
    folder = large_lora(tmp_path / "huge", SENT)
    with serving(tmp_path) as site:
        before = peak(site.process)
        env = environment(site.url, site.tokens["alice"], tmp_path) | dict(client.variables)
        subprocess.run([client.python, "-c", SEND, "acme/huge", str(folder)], check=True, env=env)
        grown = peak(site.process) - before
    assert grown < SENT * MB / 4, f"{grown / MB:.0f} MB more for a file of {SENT} MB"


def peak(process: int) -> int:
    """The peak memory of a process and of its child processes, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    own = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return own + sum(peak(int(child)) for child in children)
