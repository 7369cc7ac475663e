"""llama.cpp: the server loads adapters as GGUF files at its start, and identifies them by number.

A new or changed name therefore restarts the server with all files (listed in the file `ADAPTRY_ADAPTERS`). Afterwards all
scales are 0: a request selects its adapter (`"lora": [{"id": 0, "scale": 1.0}]`) by the number that `GET /lora-adapters` shows
for the path that the state file has under its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptry.core import strictjson
from adaptry.core.errors import CheckFailed, Invalid
from adaptry.integrations.serving.engines.engine import Engine, EngineAdapter, require_answer, require_success
from adaptry.integrations.serving.engines.hooks import NO_COMMANDS, NO_NAMES, OperatorCommands
from adaptry.integrations.serving.engines.http import EngineClient, EngineResponse

_FILE = "adapter.gguf"
_LIMITS = strictjson.JsonLimits(size=1 << 20, depth=8, nodes=100_000)


class LlamaCpp(Engine):
    """llama.cpp's HTTP server."""

    name = "llama.cpp"
    can_replace = True
    is_unload_final = False

    def __init__(
        self,
        client: EngineClient,
        commands: OperatorCommands = NO_COMMANDS,
        names: Mapping[str, str] = NO_NAMES,
    ) -> None:
        super().__init__(client)
        self._commands = commands
        self._files = {name: str(Path(path).parent / _FILE) for name, path in names.items()}

    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        there = {str(one.get("path")) for one in self._server_adapters()}
        return tuple(EngineAdapter(name, file) for name, file in sorted(self._files.items()) if file in there)

    def load(self, name: str, path: Path) -> None:
        file = str(self._commands.prepare_file(path, _FILE))
        before = dict(self._files)
        self._files[name] = file
        if any(str(one.get("path")) == file for one in self._server_adapters()):
            return
        try:
            self.restart()
            if EngineAdapter(name, file) not in self.list_adapters():
                raise CheckFailed(f"the engine was started anew and did not load {file}")
        except CheckFailed:
            self._files = before
            raise

    def unload(self, name: str) -> None:
        """The adapter stays in the server's memory, at scale 0, until the restart."""
        self._files.pop(name, None)

    def restart(self) -> None:
        self._commands.write_adapter_list(
            {name: file for name, file in self._files.items() if Path(file).is_file()}
        )
        self._commands.run_restart(self.client.is_healthy)
        self._zero_scales()

    def send_test_request(self, name: str) -> EngineResponse:
        file = self._files.get(name)
        numbers = [one.get("id") for one in self._server_adapters() if str(one.get("path")) == file]
        if not numbers:
            return EngineResponse(404, f"no adapter {name}")
        body = {"prompt": "a", "n_predict": 1, "lora": [{"id": numbers[0], "scale": 1.0}]}
        return self.client.post("/completion", body)

    def _zero_scales(self) -> None:
        scales = [{"id": one.get("id"), "scale": 0.0} for one in self._server_adapters()]
        require_success(self.client.post("/lora-adapters", scales), "set its adapters' scales")

    def _server_adapters(self) -> list[Mapping[str, Any]]:
        """(`Any`: JSON.)"""
        response = self.client.get("/lora-adapters")
        require_answer(response, "list its adapters")
        try:
            found = strictjson.loads(response.text.encode(), _LIMITS, "the engine's answer")
        except Invalid as error:
            raise CheckFailed(f"the engine's list of adapters cannot be read: {error.message}") from error
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
