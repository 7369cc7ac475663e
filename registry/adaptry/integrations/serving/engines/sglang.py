"""SGLang: adapters by `/load_lora_adapter`.

Unloading does not revoke: a request that names the adapter makes it load again, from the path that it remembers. So a
recall removes the files first; then the second load fails, and the request with it.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.core.errors import Refused
from adaptry.integrations.serving.engines.engine import Engine, Loaded, Tally, models, sum_of
from adaptry.integrations.serving.engines.http import Reply


class Sglang(Engine):
    """SGLang's HTTP server."""

    name = "sglang"

    def loaded(self) -> tuple[Loaded, ...]:
        return models(self.speaking)

    def load(self, name: str, path: Path) -> None:
        body = {"lora_name": name, "lora_path": str(path)}
        reply = self.speaking.post("/load_lora_adapter", body)
        if not _is_done(reply):
            raise Refused(f"the engine would not load {name}: {reply.words}")

    def unload(self, name: str) -> None:
        reply = self.speaking.post("/unload_lora_adapter", {"lora_name": name})
        if not _is_done(reply) and name in {one.name for one in self.loaded()}:
            raise Refused(f"the engine would not unload {name}: {reply.words}")

    def ask(self, name: str) -> Reply:
        body = {"text": "a", "sampling_params": {"max_new_tokens": 1, "temperature": 0}, "lora_path": name}
        return self.speaking.post("/generate", body)

    def tally(self) -> Tally | None:
        reply = self.speaking.get("/metrics")
        if not reply.is_ok:
            return None
        errors = sum_of(reply.text, "sglang:num_aborted_requests_total")
        return Tally(sum_of(reply.text, "sglang:num_requests_total"), errors)


def _is_done(reply: Reply) -> bool:
    return reply.is_ok and reply.json.get("success") is not False
