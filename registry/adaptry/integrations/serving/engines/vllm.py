"""vLLM: adapters are loaded with `/v1/load_lora_adapter`; VLLM_ALLOW_RUNTIME_LORA_UPDATING must be set.

Loading in place keeps the adapter's id, so running requests would continue with other weights; and two
adapters of one name in one batch crash the engine. So the name is unloaded, its running requests end, and
then the new version is loaded; in between, the name is not served (the resolver in `serving.vllm` avoids that
gap). The metrics show running requests as of the engine's last step, so we send a request to the base to
trigger a step.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from adaptry.core.errors import CheckFailed, Conflict
from adaptry.integrations.serving.engines.engine import (
    Engine,
    EngineAdapter,
    RequestCounts,
    list_openai_adapters,
    require_success,
    sum_metric,
)
from adaptry.integrations.serving.engines.http import EngineResponse

_INFO = re.compile(r"^vllm:lora_requests_info\{([^}]*)\} (\S+)$", re.MULTILINE)
_NAMES = re.compile(r'(?:running|waiting)_lora_adapters="([^"]*)"')

_NO_UPDATES = (
    "this vLLM cannot load adapters while it runs: start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and"
    " --enable-lora, and with one API server (--api-server-count 1), because vLLM refuses this with more"
)

_TIMEOUT = 5.0  # seconds
_POLL_INTERVAL = 0.2


class Vllm(Engine):
    """vLLM's HTTP server."""

    name = "vllm"
    gap = "is refused until the requests with the old version have ended and the new one is loaded"

    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        return list_openai_adapters(self.client)

    def load(self, name: str, path: Path) -> None:
        self._wait_for_requests(name)
        response = self.client.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        if response.status == 400 and EngineAdapter(name, str(path)) in self.list_adapters():
            return
        if (
            response.status == 404 and response.error_message == "Not Found"
        ):  # the web framework's 404: the route does not exist
            raise CheckFailed(_NO_UPDATES)
        require_success(response, f"load {name}")

    def unload(self, name: str) -> None:
        response = self.client.post("/v1/unload_lora_adapter", {"lora_name": name})
        if response.status != 404:
            require_success(response, f"unload {name}")
            self._step()

    def send_test_request(self, name: str) -> EngineResponse:
        body = {"model": name, "prompt": "a", "max_tokens": 1, "temperature": 0}
        return self.client.post("/v1/completions", body)

    def names_in_use(self) -> frozenset[str]:
        """The names with running requests, read from a gauge whose value is the time at which it was set; the
        newest series counts.
        """
        series = [(float(when), labels) for labels, when in _INFO.findall(self._metrics())]
        newest = max(series, default=(0.0, ""))[1]
        names = [name for listed in _NAMES.findall(newest) for name in listed.split(",")]
        return frozenset(name.strip() for name in names if name.strip())

    def started_at(self) -> float | None:
        return sum_metric(self._metrics(), "process_start_time_seconds") or None

    def request_counts(self) -> RequestCounts | None:
        metrics = self._metrics()
        requests = sum_metric(metrics, "vllm:request_success_total")
        errors = sum_metric(metrics, "vllm:request_success_total", 'finished_reason="error"')
        failed = sum_metric(metrics, "http_requests_total", 'status="5xx"')
        return RequestCounts(requests + failed, errors + failed)

    def _wait_for_requests(self, name: str) -> None:
        """Waits until no request uses the name's previous adapter. Raises `Conflict` if it takes too long."""
        until = time.monotonic() + _TIMEOUT
        while name in self.names_in_use():
            if time.monotonic() > until:
                raise Conflict(
                    f"requests for the previous version of {name} are still running; the new one is loaded"
                    " when they have ended"
                )
            time.sleep(_POLL_INTERVAL)
            self._step()

    def _step(self) -> None:
        """Makes the engine take a step, so that its metrics are current."""
        listed = self.client.get("/v1/models").json_list("data")
        base = next((str(one.get("id")) for one in listed if not one.get("parent")), None)
        if base is not None:
            self.send_test_request(base)

    def _metrics(self) -> str:
        response = self.client.get("/metrics")
        return response.text if response.is_ok else ""
