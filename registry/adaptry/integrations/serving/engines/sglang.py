"""SGLang: adapters are loaded with `/load_lora_adapter`.

After an unload, a request that names the adapter makes SGLang load it again, from the path that it remembers.
So a recall deletes the files; then that load fails, and the request with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adaptry.core.errors import CheckFailed
from adaptry.integrations.serving.engines.engine import (
    Engine,
    EngineAdapter,
    RequestCounts,
    list_openai_adapters,
    sum_metric,
)
from adaptry.integrations.serving.engines.http import EngineResponse


class Sglang(Engine):
    """SGLang's HTTP server."""

    name = "sglang"
    gap = "is refused until the requests with the old version have ended and the new one is loaded"

    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        return list_openai_adapters(self.client)

    def load(self, name: str, path: Path) -> None:
        body = {"lora_name": name, "lora_path": str(path)}
        response = self.client.post("/load_lora_adapter", body)
        if not _is_done(response):
            raise CheckFailed(f"the engine refused to load {name}: {response.error_message}")

    def unload(self, name: str) -> None:
        response = self.client.post("/unload_lora_adapter", {"lora_name": name})
        if not _is_done(response) and name in {one.name for one in self.list_adapters()}:
            raise CheckFailed(f"the engine refused to unload {name}: {response.error_message}")

    def send_test_request(self, name: str) -> EngineResponse:
        body = {"text": "a", "sampling_params": {"max_new_tokens": 1, "temperature": 0}, "lora_path": name}
        return self.client.post("/generate", body)

    def select_adapter(self, body: Mapping[str, object], name: str) -> dict[str, object]:
        """`lora_path` names the adapter. `model` gets no colon, because SGLang takes the text after it for an
        adapter's name (`base:adapter`)."""
        return {**body, "model": name.replace(":", "-"), "lora_path": name}

    def request_counts(self) -> RequestCounts | None:
        response = self.client.get("/metrics")
        if not response.is_ok:
            return None
        errors = sum_metric(response.text, "sglang:num_aborted_requests_total")
        return RequestCounts(sum_metric(response.text, "sglang:num_requests_total"), errors)


def _is_done(response: EngineResponse) -> bool:
    return response.is_ok and response.json.get("success") is not False
