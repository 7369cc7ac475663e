"""Drains adapters that were replaced in vLLM, and counts the uses of their cache leases.

A request that has been assigned an adapter may still reach the engine, which then loads evicted weights from
the folder again and dies if the folder is gone. An adapter is therefore unloaded, and its lease released,
only when no request uses it, and some seconds after it was replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.refs import Ref
from adaptry.integrations.serving.cache.cache import Cache, CachedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm


@dataclass(slots=True)
class ResolvedAdapter:
    """A version under a name; `request`: its `LoRARequest`. Times: the resolver's clock. (`Any`: vLLM's.)"""

    ref: Ref
    cached: CachedAdapter
    request: Any
    used_at: float
    retired_at: float = 0.0
    is_withdrawn: bool = False

    @property
    def lora_id(self) -> int:
        """The adapter's id in the engine, which vLLM assigns on loading."""
        return int(self.request.lora_int_id)


@dataclass(slots=True)
class LeaseRefCounts:
    """Reference counts of cache leases: a lease is released with its last user."""

    cache: Cache
    _counts: Counter[Digest] = field(default_factory=Counter)

    def acquire(self, digest: Digest) -> None:
        self._counts[digest] += 1

    def release(self, digest: Digest) -> None:
        self._counts[digest] -= 1
        if self._counts[digest] <= 0:
            del self._counts[digest]
            self.cache.release(digest)


@dataclass(slots=True)
class DrainingAdapters:
    """Replaced adapters that are still loaded, each for at least `linger` seconds."""

    leases: LeaseRefCounts
    linger: float = 10.0
    clock: Callable[[], float] = time.monotonic
    _draining: list[ResolvedAdapter] = field(default_factory=list)

    def add(self, loaded: ResolvedAdapter) -> None:
        loaded.retired_at = self.clock()
        self._draining.append(loaded)

    async def unload_drained(self, vllm: InProcessVllm) -> None:
        """Unloads the adapters that no request can use any more; deletes the files of withdrawn ones."""
        in_use, now = vllm.ids_in_use(), self.clock()
        drained = [
            loaded
            for loaded in self._draining
            if loaded.lora_id not in in_use and now >= loaded.retired_at + self.linger
        ]
        for loaded in drained:
            self._draining.remove(loaded)
            await vllm.unload(loaded.lora_id)
            if loaded.is_withdrawn:
                await asyncio.to_thread(self.leases.cache.remove, loaded.cached.digest)
            self.leases.release(loaded.cached.digest)
