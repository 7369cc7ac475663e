"""Makes room in a full cache for a name that a client requests: unloads idle adapters, and waits until their
files are released.

vLLM answers a refused request without a time for the next attempt, so the request waits instead: an adapter
is unloaded some seconds after its name was removed (`draining_adapters`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from adaptry.core.errors import StorageFull
from adaptry.integrations.serving.vllm.draining_adapters import DrainingAdapters, ResolvedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.idle_adapters import least_recently_used
from adaptry.integrations.serving.vllm.resolver_config import ResolverConfig

log = logging.getLogger("vllm.adaptry")

_MAX_WAIT = 30.0  # seconds


class CacheSpace:
    """`names` are the loaded adapters; `drain` removes one of them from the engine, by its name."""

    def __init__(
        self,
        config: ResolverConfig,
        names: Mapping[str, ResolvedAdapter],
        draining: DrainingAdapters,
        drain: Callable[[InProcessVllm, str], None],
    ) -> None:
        self._config = config
        self._names = names
        self._draining = draining
        self._drain = drain
        self._waiting = 0

    def free(self, vllm: InProcessVllm) -> None:
        """Begins to unload the least recently used idle adapter, unless more adapters are being unloaded than
        requests wait for one."""
        if len(self._draining.idle(vllm)) > self._waiting:
            return
        if name := least_recently_used(self._config, vllm, self._names):
            log.info("%s is unloaded to make room in the cache", name)
            self._drain(vllm, name)

    async def prepare_with_space(
        self, vllm: InProcessVllm, prepare: Callable[[], Awaitable[ResolvedAdapter]]
    ) -> ResolvedAdapter:
        """The result of `prepare`, which calls `free` if the cache is full. In that case, waits until an idle
        adapter has been unloaded, and tries again. Raises `StorageFull` if all adapters are in use by
        requests or kept by the configuration, or after half a minute."""
        until = self._config.clock() + _MAX_WAIT
        while True:
            try:
                return await prepare()
            except StorageFull as error:
                if self._config.clock() >= until or not await self._wait(vllm):
                    raise StorageFull(
                        f"{error.message}; or request it again when fewer adapters are in use"
                    ) from error

    async def _wait(self, vllm: InProcessVllm) -> bool:
        """Waits until the next adapter has been unloaded. Returns False if none will be."""
        self._waiting += 1
        try:
            return await self._draining.unload_next(vllm)
        finally:
            self._waiting -= 1
