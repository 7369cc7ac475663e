"""Detects Adaptry's plugin in a vLLM: `adaptry follow` must not run next to it, since both would set
names.
"""

from __future__ import annotations

from adaptry.core.errors import Conflict
from adaptry.integrations.serving.engines.http import EngineClient
from adaptry.integrations.serving.vllm.names import PLUGIN_ANSWER, PLUGIN_PROBE


def require_no_plugin(client: EngineClient) -> None:
    """Raises `Conflict` if the plugin is there; `Unavailable` if the engine does not answer."""
    request = {"model": PLUGIN_PROBE, "prompt": "a", "max_tokens": 1, "temperature": 0}
    response = client.post("/v1/completions", request)
    if not response.is_ok and PLUGIN_ANSWER in response.error_message:
        worker = response.error_message.partition(PLUGIN_ANSWER)[2].split()[0]
        raise Conflict(
            f"Adaptry's plugin already serves the adapters of this engine, as the worker {worker}: it follows"
            " aliases, reports and proves recalls itself, and two workers would conflict over names. Stop"
            " this one, or start vLLM without the plugin (without ADAPTRY_URL)"
        )
