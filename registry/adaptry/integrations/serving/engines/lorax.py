"""LoRAX: the engine loads an adapter from a local folder when a request first names it, and never rereads it.

Clients name an adapter by its folder's path, which the state file has under the adapter's name. The engine
can neither list nor unload adapters: a version counts as dropped once the engine has restarted without its
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.integrations.serving.engines.engine import Engine, EngineAdapter, require_answer, require_success
from adaptry.integrations.serving.engines.hooks import NO_COMMANDS, NO_NAMES, OperatorCommands
from adaptry.integrations.serving.engines.http import EngineClient, EngineResponse


class Lorax(Engine):
    """LoRAX's HTTP server."""

    name = "lorax"
    can_replace = True
    can_be_proxied = False
    is_unload_final = False

    def __init__(
        self,
        client: EngineClient,
        commands: OperatorCommands = NO_COMMANDS,
        names: Mapping[str, str] = NO_NAMES,
    ) -> None:
        super().__init__(client)
        self._commands = commands
        self._paths = dict(names)
        self._since_restart: set[str] | None = None

    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        require_answer(self.client.get("/health"), "report its health")
        return tuple(EngineAdapter(name, path) for name, path in sorted(self._paths.items()))

    def load(self, name: str, path: Path) -> None:
        if self._since_restart is not None:
            self._since_restart.add(str(path))
        require_success(self._generate(str(path)), f"load {name}")
        self._paths[name] = str(path)

    def unload(self, name: str) -> None:
        """Does nothing to the engine, which keeps the adapter until it restarts; the state file no longer
        lists the path.
        """
        self._paths.pop(name, None)

    def readable_digests(self, loaded: Sequence[EngineAdapter]) -> frozenset[Digest] | None:
        """The versions loaded since the last restart. None before the first one: the engine may still have
        any version that it ever loaded."""
        if self._since_restart is None:
            return None
        files = (EngineAdapter("", path) for path in self._since_restart)
        return frozenset(one.digest for one in (*files, *loaded) if one.digest is not None)

    def restart(self) -> None:
        self._commands.write_adapter_list(self._paths)
        self._commands.run_restart(self.client.is_healthy)
        self._since_restart = set(self._paths.values())

    def send_test_request(self, name: str) -> EngineResponse:
        if name not in self._paths:
            return EngineResponse(404, f"no adapter {name}")
        return self._generate(self._paths[name])

    def _generate(self, path: str) -> EngineResponse:
        parameters = {"adapter_id": path, "adapter_source": "local", "max_new_tokens": 1}
        return self.client.post("/generate", {"inputs": "a", "parameters": parameters})
