"""Keeps pinned adapters in vLLM's engine, so that no request for one waits until its weights are loaded.

The engine evicts the adapter that was used least recently. Loading an adapter that is loaded marks it as just
used, and loads it again if it was evicted. vLLM's own `pin_lora` is not used: its scheduler takes `max_loras`
adapters into a batch whether or not pins occupy slots, and a batch with more adapters than are left ends the
engine (0.32: the slot of an adapter of the same batch is freed, and `convert_mapping` then looks it up).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from adaptry.core.errors import CheckFailed, Invalid
from adaptry.integrations.serving.vllm.draining_adapters import ResolvedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm

log = logging.getLogger("vllm.adaptry")


def require_slots(pinned: Sequence[str], vllm: InProcessVllm) -> None:
    """Raises `Invalid` if there are more pinned names than slots for adapters in the engine."""
    slots = vllm.slots
    if slots is not None and len(pinned) > slots:
        raise Invalid(
            f"ADAPTRY_PIN has {len(pinned)} names, but vLLM has only {slots} slots for adapters:"
            f" start it with --max-loras {len(pinned)} or more"
        )


async def keep_loaded(
    pinned: Sequence[str], loaded: Mapping[str, ResolvedAdapter], vllm: InProcessVllm
) -> None:
    """Marks the pinned names that are `loaded` as just used, and loads those again that were evicted."""
    for name in pinned:
        adapter = loaded.get(name)
        if adapter is None or vllm.loaded.get(name) is not adapter.request:
            continue
        try:
            await vllm.load(adapter.request)
        except CheckFailed as error:
            log.warning("%s is pinned, but may not be in the engine: %s", name, error.message)
