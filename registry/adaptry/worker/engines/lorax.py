"""LoRAX: adapters are loaded by the request that names them, from a folder on its machine, and never looked at again.

The name a client gives is the folder's path, so it is the path that `adaptry follow` publishes (in its state file). There is
no way to list or to unload: what this worker loaded counts as loaded until the engine is started anew.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.worker.engines.engine import Engine, Loaded, require_done
from adaptry.worker.engines.speaking import Reply, Speaking


class Lorax(Engine):
    """LoRAX's HTTP server."""

    name = "lorax"
    swaps = True
    forgets = False

    def __init__(self, speaking: Speaking) -> None:
        super().__init__(speaking)
        self._paths: dict[str, str] = {}

    def loaded(self) -> tuple[Loaded, ...]:
        require_done(self.speaking.get("/health"), "say that it is well")
        return tuple(Loaded(name, path) for name, path in sorted(self._paths.items()))

    def load(self, name: str, path: Path) -> None:
        require_done(self._generate(str(path)), f"load {name}")
        self._paths[name] = str(path)

    def unload(self, name: str) -> None:
        self._paths.pop(name, None)

    def ask(self, name: str) -> Reply:
        return self._generate(self._paths.get(name, name))

    def _generate(self, path: str) -> Reply:
        parameters = {"adapter_id": path, "adapter_source": "local", "max_new_tokens": 1}
        return self.speaking.post("/generate", {"inputs": "a", "parameters": parameters})
