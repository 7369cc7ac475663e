"""Withdrawn versions that other callers loaded into this vLLM, not the resolver.

Their names are removed at once, so that no new request uses them. Each is unloaded when no running request
uses it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from adaptry.core.digest import Digest
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.snapshot import load_of


class ForeignAdapters:
    """Foreign adapters whose names were removed, but which the engine still has. (`Any`: vLLM's
    `LoRARequest`.)
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def remove_withdrawn(
        self, vllm: InProcessVllm, own_names: Container[str], withdrawn: Container[Digest]
    ) -> None:
        """Removes the names of withdrawn versions from the engine, except the resolver's own names."""
        for name, request in list(vllm.loaded.items()):
            if name not in own_names and load_of(request).digest in withdrawn:
                del vllm.loaded[name]
                self.requests.append(request)

    async def unload_unused(self, vllm: InProcessVllm) -> None:
        """Unloads the adapters that no request uses."""
        for request in list(self.requests):
            if request.lora_int_id not in vllm.ids_in_use():
                await vllm.unload(request.lora_int_id)
                self.requests.remove(request)
