"""mistral.rs: adapters as aliases of generations, replaced by compare-and-swap.

A replaced generation lives until the requests that use it have ended, so a name is always served.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.integrations.serving.engines.engine import Engine, EngineAdapter, require_answer, require_success
from adaptry.integrations.serving.engines.http import EngineResponse


class MistralRs(Engine):
    """mistral.rs's HTTP server, started with MISTRALRS_ALLOW_RUNTIME_LORA_UPDATING."""

    name = "mistral.rs"
    can_replace = True

    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        found = [
            EngineAdapter(str(one.get("id")), str(one.get("source") or ""))
            for one in self._listing().json_list("data")
        ]
        return tuple(sorted(found, key=lambda one: one.name))

    def load(self, name: str, path: Path) -> None:
        body: dict[str, object] = {"lora_name": name, "lora_path": str(path)}
        if generation := self._generation(name):
            body |= {"load_inplace": True, "expected_generation": generation}
        require_success(self.client.post("/v1/load_lora_adapter", body), f"load {name}")

    def unload(self, name: str) -> None:
        if generation := self._generation(name):
            body = {"lora_name": name, "expected_generation": generation}
            require_success(self.client.post("/v1/unload_lora_adapter", body), f"unload {name}")

    def send_test_request(self, name: str) -> EngineResponse:
        return self.client.post("/v1/completions", {"model": name, "prompt": "a", "max_tokens": 1})

    def names_in_use(self) -> frozenset[str]:
        """The aliases of generations with running requests."""
        held = (one for one in self._listing().json_list("generations") if one.get("active_leases"))
        return frozenset(str(alias) for one in held for alias in one.get("aliases") or ())

    def _generation(self, name: str) -> str | None:
        found = (one.get("generation") for one in self._listing().json_list("data") if one.get("id") == name)
        return next((str(one) for one in found if one), None)

    def _listing(self) -> EngineResponse:
        response = self.client.get("/v1/lora_adapters")
        require_answer(response, "list its adapters")
        return response
