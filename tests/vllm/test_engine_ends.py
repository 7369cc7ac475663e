"""A real vLLM whose engine ends whenever it loads a certain version, and that is started again each time."""

from __future__ import annotations

import contextlib
from pathlib import Path

import urllib3

from . import models, vllm_server
from .conftest import Place

pytestmark = vllm_server.PYTHON.marks

PLUGIN = """
import os
from vllm.lora.worker_manager import WorkerLoRAManager

def register():
    load = WorkerLoRAManager._load_adapter
    def load_or_end(self, request):
        if os.environ["ENDS_AT"] in request.lora_path:
            os._exit(3)  # as the system ends a process that needs too much memory
        return load(self, request)
    WorkerLoRAManager._load_adapter = load_or_end
"""


def deadly_plugin(folder: Path) -> Path:
    """A folder with a vLLM plugin that ends the process when it loads the version in ENDS_AT."""
    (folder / "deadly-1.dist-info").mkdir(parents=True)
    (folder / "deadly.py").write_text(PLUGIN)
    (folder / "deadly-1.dist-info" / "METADATA").write_text("Name: deadly\nVersion: 1\n")
    (folder / "deadly-1.dist-info" / "entry_points.txt").write_text(
        "[vllm.general_plugins]\ndeadly = deadly:register\n"
    )
    return folder


def test_a_version_that_ends_the_engine_twice_waits_and_others_are_served(
    place: Place, env: dict[str, str], tmp_path: Path
) -> None:
    deadly = place.publish("acme/deadly", seed=71)
    place.publish("acme/harmless", seed=72)
    theirs = {
        **env,
        "PYTHONPATH": f"{env['PYTHONPATH']}:{deadly_plugin(tmp_path / 'plugin')}",
        "ENDS_AT": deadly.digest.hex,
        "ADAPTRY_CACHE": str(tmp_path / "cache"),
        "ADAPTRY_WORKER": "ends",
    }
    for start in range(2):
        log = tmp_path / f"{start}.log"
        with vllm_server.serving(vllm_server.PYTHON.python, place.base, theirs, log) as vllm:
            assert vllm.complete("acme/harmless", models.PROMPT).status == 200
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                assert vllm.complete("acme/deadly", models.PROMPT).status >= 400
            vllm.process.wait(300)
    with vllm_server.serving(vllm_server.PYTHON.python, place.base, theirs, tmp_path / "last.log") as vllm:
        refused = vllm.complete("acme/deadly@1", models.PROMPT)
        assert (refused.status, "the engine ended 2 times" in refused.reason) == (503, True)
        assert vllm.complete("acme/harmless", models.PROMPT).status == 200
