"""NVIDIA Dynamo: one of its vLLM workers, whose system port loads and unloads adapters by name.

Written from its documentation and routes (`POST` and `GET /v1/loras`, `DELETE /v1/loras/NAME`, release 1.6),
but never run. The listing has names without paths, so the paths come from the state file. Requests go to
Dynamo's frontend and not to the system port, so a loaded adapter is not tested with a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from adaptry.integrations.serving.engines.engine import Engine, EngineAdapter, require_answer, require_success
from adaptry.integrations.serving.engines.hooks import NO_COMMANDS, NO_NAMES, OperatorCommands
from adaptry.integrations.serving.engines.http import EngineClient, EngineResponse


class Dynamo(Engine):
    """A worker's system port."""

    name = "vllm"  # its rules decide which adapters are served as trained
    can_be_proxied = False
    gap = "is refused while the adapter is unloaded and loaded again"

    def __init__(
        self,
        client: EngineClient,
        commands: OperatorCommands = NO_COMMANDS,
        names: Mapping[str, str] = NO_NAMES,
    ) -> None:
        super().__init__(client)
        self._paths = dict(names)

    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        response = self.client.get("/v1/loras")
        require_answer(response, "list its adapters (is DYN_LORA_ENABLED set?)")
        loaded = response.json.get("loras")
        names = sorted(map(str, loaded)) if isinstance(loaded, dict) else []
        return tuple(EngineAdapter(name, self._paths.get(name, "")) for name in names)

    def load(self, name: str, path: Path) -> None:
        """Loads an adapter. Dynamo keeps the adapter that a name already has, so `unload` must come before
        another version.
        """
        body = {"lora_name": name, "source": {"uri": f"file://{path}"}}
        require_success(_checked(self.client.post("/v1/loras", body, timeout=600)), f"load {name}")
        self._paths[name] = str(path)

    def unload(self, name: str) -> None:
        response = _checked(self.client.delete(f"/v1/loras/{quote(name, safe='/')}"))
        if response.status != 404:
            require_success(response, f"unload {name}")
        self._paths.pop(name, None)

    def send_test_request(self, name: str) -> EngineResponse:
        """A response that shows whether the name is listed."""
        is_loaded = any(one.name == name for one in self.list_adapters())
        return EngineResponse(200 if is_loaded else 404, "" if is_loaded else f"no adapter {name}")


def _checked(response: EngineResponse) -> EngineResponse:
    """The response, as status 500 if Dynamo reports a failure with 200 and `"status": "error"`."""
    is_failed = response.is_ok and response.json.get("status") not in ("success", None)
    return EngineResponse(500, response.text) if is_failed else response
