"""Drains adapters that were replaced in vLLM, and counts the uses of their cache leases.

A request that has been assigned an adapter may still reach the engine, which then loads evicted weights from
the folder again, and exits if the folder no longer exists. An adapter is therefore unloaded, and its lease
released, only when no request uses it, and some seconds after it was replaced.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import field
from datetime import datetime
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.core.stack_ref import StackRef
from adaptry.integrations.serving.cache.cache import Cache, CachedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm


@dataclass(slots=True)
class ResolvedAdapter:
    """The adapter that was loaded for a requested name: one version (`parts` has one), or several, stacked in
    the folder of `stack_key`. `request`: its `LoRARequest`. `used_at` and `retired_at` are times of the
    resolver's clock. `has_answered`: a request for it has succeeded. (`Any`: vLLM's.)"""

    name: str
    target: StackRef
    parts: tuple[CachedAdapter, ...]
    request: Any
    used_at: float
    since: datetime
    stack_key: str | None = None
    last_used: datetime | None = None
    retired_at: float = 0.0
    has_answered: bool = False

    @property
    def digests(self) -> tuple[Digest, ...]:
        return tuple(part.digest for part in self.parts)

    @property
    def adapters(self) -> frozenset[AdapterName]:
        return frozenset(part.version.name for part in self.parts)

    @property
    def lora_id(self) -> int:
        """The adapter's id in the engine, which vLLM assigns on loading."""
        return int(self.request.lora_int_id)


@dataclass(slots=True)
class LeaseRefCounts:
    """Reference counts of cache leases: a lease is released with its last user."""

    cache: Cache
    _counts: Counter[Digest] = field(default_factory=Counter)
    _stacks: Counter[str] = field(default_factory=Counter)

    def acquire(self, digest: Digest) -> None:
        self._counts[digest] += 1

    def release(self, digest: Digest) -> None:
        self._counts[digest] -= 1
        if self._counts[digest] <= 0:
            del self._counts[digest]
            self.cache.release(digest)

    def acquire_stack(self, key: str) -> None:
        self._stacks[key] += 1

    def release_stack(self, key: str) -> None:
        self._stacks[key] -= 1
        if self._stacks[key] <= 0:
            del self._stacks[key]
            self.cache.stacks.release(key)

    def release_all(self, loaded: ResolvedAdapter) -> None:
        """Releases all leases of a loaded adapter: first the stack, which contains the weights of its
        parts."""
        if loaded.stack_key is not None:
            self.release_stack(loaded.stack_key)
        for digest in loaded.digests:
            self.release(digest)


@dataclass(slots=True)
class DrainingAdapters:
    """Replaced adapters that are still loaded, each for at least `linger` seconds."""

    leases: LeaseRefCounts
    linger: float = 10.0
    clock: Callable[[], float] = time.monotonic
    _draining: list[ResolvedAdapter] = field(default_factory=list)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, loaded: ResolvedAdapter) -> None:
        loaded.retired_at = self.clock()
        self._draining.append(loaded)

    @property
    def adapters(self) -> tuple[ResolvedAdapter, ...]:
        return tuple(self._draining)

    def idle(self, vllm: InProcessVllm) -> list[ResolvedAdapter]:
        """The adapters that no running request uses."""
        in_use = vllm.ids_in_use()
        return [loaded for loaded in self._draining if loaded.lora_id not in in_use]

    async def unload_drained(self, vllm: InProcessVllm) -> None:
        """Unloads the adapters that no request can use."""
        async with self._lock:
            now = self.clock()
            for loaded in self.idle(vllm):
                if now >= loaded.retired_at + self.linger:
                    await vllm.unload(loaded.lora_id)
                    self._draining.remove(loaded)
                    self.leases.release_all(loaded)

    async def unload_next(self, vllm: InProcessVllm) -> bool:
        """Waits until the first idle adapter may be unloaded, and unloads it unless a request uses it by
        then. Returns False if no adapter is idle."""
        idle = self.idle(vllm)
        if not idle:
            return False
        until = min(loaded.retired_at for loaded in idle) + self.linger
        await asyncio.sleep(max(0.0, until - self.clock()))
        await self.unload_drained(vllm)
        return True
