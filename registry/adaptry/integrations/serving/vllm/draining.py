"""What lost its name in vLLM, and what anything here still holds of the cache.

A request that was given an adapter may yet come to the engine, and loads it from its folder if the engine has pushed it
out: an engine that finds no folder then dies. So an adapter leaves engine and disk only when no request is under way with
it, and a while after it lost its name.
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
    """A version under a name; `request` is what vLLM has for it. Times are those of the resolver's clock. (`Any`: vLLM's.)"""

    ref: Ref
    cached: CachedAdapter
    request: Any
    used_at: float
    retired_at: float = 0.0
    is_withdrawn: bool = False

    @property
    def lora_id(self) -> int:
        """Which one it is to the engine; vLLM gives it when it loads it."""
        return int(self.request.lora_int_id)


@dataclass(slots=True)
class LeaseRefCounts:
    """How many things here need a version's folder; its lease ends with the last."""

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
    """What is on its way out; `linger` is how many seconds it stays at least."""

    leases: LeaseRefCounts
    linger: float = 10.0
    clock: Callable[[], float] = time.monotonic
    _draining: list[ResolvedAdapter] = field(default_factory=list)

    def add(self, loaded: ResolvedAdapter) -> None:
        loaded.retired_at = self.clock()
        self._draining.append(loaded)

    async def unload_drained(self, vllm: InProcessVllm) -> None:
        """Of what nobody can be using any more; withdrawn versions leave the disk too."""
        in_use, now = vllm.ids_in_use(), self.clock()
        going = [
            loaded
            for loaded in self._draining
            if loaded.lora_id not in in_use and now >= loaded.retired_at + self.linger
        ]
        for loaded in going:
            self._draining.remove(loaded)
            await vllm.unload(loaded.lora_id)
            if loaded.is_withdrawn:
                await asyncio.to_thread(self.leases.cache.remove, loaded.cached.digest)
            self.leases.release(loaded.cached.digest)
