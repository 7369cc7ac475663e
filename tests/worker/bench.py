"""A vLLM with our resolver, as far as the resolver sees it, and its registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adaptry.core.errors import Unauthenticated, Unavailable
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.resolver import AdapterResolver
from adaptry.integrations.serving.vllm.resolver_config import ResolverConfig
from adaptry.registry.records import AliasInfo
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.context import RegistryContext

from .recorded_vllm import LoRARequest, Models


class _Role:
    """A role of a registry that can be unreachable. (`Any`: arguments and results of the role's methods.)"""

    def __init__(self, role: Any, call: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._role, self._call = role, call

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._role, name)

        def call(*arguments: Any, **named: Any) -> Any:
            return self._call(f"{type(self._role).__name__}.{name}", lambda: method(*arguments, **named))

        return call


class Flapping(LocalRegistry):
    """A registry that can be unreachable for its worker; `asked` counts the look-ups of refs. `there` is the
    same registry, always reachable; `lagging` has earlier states of aliases, `broken` is a method that does
    not answer; with `is_revoked`, it refuses the worker's token.
    """

    is_away = False
    is_revoked = False
    asked = 0
    broken: str | None = None
    lagging: Mapping[str, AliasInfo] = MappingProxyType({})

    def __init__(self, context: RegistryContext) -> None:
        super().__init__(context)
        self.there = LocalRegistry(context)
        for role in ("versions", "aliases", "events", "workers", "bases", "files"):
            setattr(self, role, _Role(getattr(self, role), self._look))

    def _look(self, method: str, call: Callable[[], Any]) -> Any:
        self.asked += method == "LocalVersions.get"
        if self.is_away or method == self.broken:
            raise Unavailable("cannot reach the registry; is the server running?")
        if self.is_revoked:
            raise Unauthenticated("that token is unknown or revoked")
        found = call()
        if method == "LocalAliases.list" and self.lagging:
            return tuple(self.lagging.get(one.alias, one) for one in found)
        return found


class Bench:
    """A vLLM that serves `base` with our resolver, and the registry that the resolver queries."""

    def __init__(
        self,
        registry: Flapping,
        base: Path,
        cache: Cache,
        every: float = 3600,
        refused_for: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        **more: Any,
    ) -> None:
        self.registry = registry
        self._base, self._cache = base, cache
        means = ResolverConfig(
            registry,
            cache,
            LoRARequest,
            "0.32.0",
            refresh_interval=every,
            linger=0.0,
            refusal_ttl=refused_for,
            clock=clock,
            worker_name="gpu-1",
            **more,
        )
        self.served = AdapterResolver(means)
        self.models = Models(base, self._resolve)

    def restarted(self, **more: Any) -> Bench:
        """A new process of the engine: the lock on its worker's name goes with the old one, and so do the
        refreshes that it began.
        """
        if self.served._refresh_task is not None:
            self.served._refresh_task.cancel()
        if self.served.worker is not None:
            self.served.worker.close()
        return Bench(self.registry, self._base, self._cache, **more)

    async def _resolve(self, name: str) -> Any:
        return await self.served.resolve(InProcessVllm.current(), name)

    async def ask(self, name: str) -> str | None:
        """The folder from which a request for `name` is answered; None if vLLM reports that there is no such
        model.
        """
        request = await self.models.resolve_lora(name)
        return request and request.lora_path

    async def look(self) -> None:
        await self.served.refresh(InProcessVllm(self.models))

    @property
    def held(self) -> set[str]:
        """The beginnings of the digests of the adapters that the engine holds."""
        return {Path(path).parent.name[:12] for path in self.models.engine_client.held.values()}
