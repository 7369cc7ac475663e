"""vLLM: adapters by `/v1/load_lora_adapter`, where VLLM_ALLOW_RUNTIME_LORA_UPDATING is set.

Loading in place keeps the adapter's number, so that requests under way go on with other weights half-way; and two adapters of one
name in one batch end the engine. So a name is unloaded, the requests under way with it end, and then it is loaded: for so long
it is not answered (a resolver closes that gap: `worker.vllm`). Which requests are under way is in the metrics, as of the engine's last
step, so a request of our own to the base makes it take one.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from adaptry.core.errors import Conflict
from adaptry.integrations.serving.engines.engine import Engine, Loaded, Tally, models, require_done, sum_of
from adaptry.integrations.serving.engines.http import Reply

_INFO = re.compile(r"^vllm:lora_requests_info\{([^}]*)\} (\S+)$", re.MULTILINE)
_NAMES = re.compile(r'(?:running|waiting)_lora_adapters="([^"]*)"')

_PATIENCE = 5.0  # seconds
_EVERY = 0.2


class Vllm(Engine):
    """vLLM's HTTP server."""

    name = "vllm"

    def loaded(self) -> tuple[Loaded, ...]:
        return models(self.speaking)

    def load(self, name: str, path: Path) -> None:
        self._wait_for_requests(name)
        reply = self.speaking.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        if reply.status == 400 and Loaded(name, str(path)) in self.loaded():
            return
        require_done(reply, f"load {name}")

    def unload(self, name: str) -> None:
        reply = self.speaking.post("/v1/unload_lora_adapter", {"lora_name": name})
        if reply.status != 404:
            require_done(reply, f"unload {name}")
            self._step()

    def ask(self, name: str) -> Reply:
        body = {"model": name, "prompt": "a", "max_tokens": 1, "temperature": 0}
        return self.speaking.post("/v1/completions", body)

    def busy(self) -> frozenset[str]:
        """From a gauge whose value is the time it was set at: the newest series counts."""
        series = [(float(when), labels) for labels, when in _INFO.findall(self._metrics())]
        newest = max(series, default=(0.0, ""))[1]
        names = [name for listed in _NAMES.findall(newest) for name in listed.split(",")]
        return frozenset(name.strip() for name in names if name.strip())

    def tally(self) -> Tally | None:
        metrics = self._metrics()
        requests = sum_of(metrics, "vllm:request_success_total")
        errors = sum_of(metrics, "vllm:request_success_total", 'finished_reason="error"')
        failed = sum_of(metrics, "http_requests_total", 'status="5xx"')
        return Tally(requests + failed, errors + failed)

    def _wait_for_requests(self, name: str) -> None:
        """Until none is under way with what had the name before. Raises `Conflict` where they take longer."""
        until = time.monotonic() + _PATIENCE
        while name in self.busy():
            if time.monotonic() > until:
                raise Conflict(
                    f"requests that began with what {name} was are under way; it is loaded once they end"
                )
            time.sleep(_EVERY)
            self._step()

    def _step(self) -> None:
        """Has the engine take a step, so that its metrics are those of now."""
        listed = self.speaking.get("/v1/models").listed("data")
        base = next((str(one.get("id")) for one in listed if not one.get("parent")), None)
        if base is not None:
            self.ask(base)

    def _metrics(self) -> str:
        reply = self.speaking.get("/metrics")
        return reply.text if reply.is_ok else ""
