"""LoRAX: adapters are loaded by the request that names them, from a folder on its machine, and never looked at again.

The name a client gives is the folder's path, so it is the path under its name in the state file that clients are to send. There
is no way to list or to unload: a version counts as dropped once the engine was started anew without its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adaptry.integrations.serving.engines.engine import Engine, Loaded, require_done, require_told
from adaptry.integrations.serving.engines.hooks import NO_NAMES, NOTHING, Outside
from adaptry.integrations.serving.engines.http import Reply, Speaking


class Lorax(Engine):
    """LoRAX's HTTP server."""

    name = "lorax"
    swaps = True
    forgets = False

    def __init__(
        self, speaking: Speaking, outside: Outside = NOTHING, names: Mapping[str, str] = NO_NAMES
    ) -> None:
        super().__init__(speaking)
        self._outside = outside
        self._paths = dict(names)

    def loaded(self) -> tuple[Loaded, ...]:
        require_told(self.speaking.get("/health"), "say that it is well")
        return tuple(Loaded(name, path) for name, path in sorted(self._paths.items()))

    def load(self, name: str, path: Path) -> None:
        require_done(self._generate(str(path)), f"load {name}")
        self._paths[name] = str(path)

    def unload(self, name: str) -> None:
        """Nobody is told its path any more; the engine has it until it is started anew."""
        self._paths.pop(name, None)

    def renew(self) -> None:
        self._outside.write(self._paths)
        self._outside.start_anew(self.speaking.is_up)

    def ask(self, name: str) -> Reply:
        if name not in self._paths:
            return Reply(404, f"no adapter {name}")
        return self._generate(self._paths[name])

    def _generate(self, path: str) -> Reply:
        parameters = {"adapter_id": path, "adapter_source": "local", "max_new_tokens": 1}
        return self.speaking.post("/generate", {"inputs": "a", "parameters": parameters})
