"""Resolves the registry's adapters for this vLLM, and refreshes them afterwards.

vLLM never resolves a loaded name again, so every resolved name is refreshed after each event in the registry,
and periodically. If a name now means another version, that one is loaded and replaces the old one atomically;
if the version may no longer be served, the name is removed, and requests for it get the reason. Everything
runs on vLLM's event loop; blocking calls run on threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from adaptry.core.errors import (
    AdaptryError,
    NotFound,
    ProtocolMismatch,
    StorageFull,
    Unauthenticated,
    Unavailable,
    Withdrawn,
)
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving.cache.cache import Cache, CachedAdapter
from adaptry.integrations.serving.compatibility import EngineProfile, require_base_match, require_compatible
from adaptry.integrations.serving.event_listener import EventListener
from adaptry.integrations.serving.limits import NegativeCache, RateLimiter
from adaptry.integrations.serving.served_base import identify_served_base
from adaptry.integrations.serving.vllm.draining import DrainingAdapters, LeaseRefCounts, ResolvedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.names import loaded_name, numbered_name, parse_model_name
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import require_usable

log = logging.getLogger("vllm.adaptry")

MakeLoraRequest = Callable[[str, int, str], Any]
"""Makes vLLM's `LoRARequest` from name, id and path. (`Any`: vLLM's own type, everywhere in this file.)"""

_MAX_WAIT = 5.0
"""Seconds without an event after which all names are refreshed anyway."""

_UNREACHABLE = (Unavailable, Unauthenticated, ProtocolMismatch)
"""Errors that say nothing about the adapter: loaded adapters stay."""


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """A resolver's dependencies and settings. `version` is vLLM's, `base` the configured base
    (`identify_served_base`). In seconds: `refresh_interval` is the least time between two refreshes, `linger`
    how long a replaced adapter stays loaded, and `refusal_ttl` how long a refusal is cached. `clock` returns
    seconds."""

    registry: Registry
    cache: Cache
    make_request: MakeLoraRequest
    version: str
    base: str | None = None
    refresh_interval: float = 0.1
    linger: float = 10.0
    refusal_ttl: float = 5.0
    clock: Callable[[], float] = time.monotonic


class AdapterResolver:
    """Serves one registry's adapters in one vLLM."""

    def __init__(self, config: ResolverConfig) -> None:
        self._config = config
        self._refusals = NegativeCache(config.refusal_ttl)
        self._rate_limiter = RateLimiter(per_second=50)
        self._names: dict[str, ResolvedAdapter] = {}
        self._leases = LeaseRefCounts(config.cache)
        self._draining = DrainingAdapters(self._leases, config.linger, config.clock)
        self._load_counts: Counter[str] = Counter()
        self._engine_profile: EngineProfile | None = None
        self._refresh_task: asyncio.Task[None] | None = None
        self._listener = EventListener(config.registry)

    async def resolve(self, vllm: InProcessVllm, name: str) -> Any:
        """The request that makes vLLM load an unknown name; None if it is no ref, or not in the registry.

        Raises the reason if the version may not be served; the refusal is cached for a few seconds.
        """
        ref = parse_model_name(name)
        if ref is None:
            return None
        try:
            self._refusals.check(name, self._config.clock())
            loaded = await self._resolve_limited(vllm, name, ref)
        except NotFound:
            return None
        self._names[name] = loaded
        return loaded.request

    async def _resolve_limited(self, vllm: InProcessVllm, name: str, ref: Ref) -> ResolvedAdapter:
        self._rate_limiter.acquire(self._config.clock())
        self._start_refreshing(vllm)
        self._listener.subscribe([ref.name, *self._watched_adapters()])
        try:
            return await self._prepare(vllm, name, ref)
        except AdaptryError as error:
            self._refuse(name, error)
            raise

    async def refresh(self, vllm: InProcessVllm, about: Collection[AdapterName] = ()) -> None:
        """Refreshes every loaded name, or those of the adapters `about`; then unloads drained adapters."""
        names = [name for name, loaded in self._names.items() if not about or loaded.ref.name in about]
        await asyncio.gather(*(self._refresh_name(vllm, name) for name in names))
        in_use, now = vllm.ids_in_use(), self._config.clock()
        for loaded in self._names.values():
            loaded.used_at = now if loaded.lora_id in in_use else loaded.used_at
        await self._draining.unload_drained(vllm)

    async def _refresh_name(self, vllm: InProcessVllm, name: str) -> None:
        loaded = self._names[name]
        if vllm.loaded.get(name) is not loaded.request:
            if not vllm.is_resolving(name):  # unloaded by someone else, or refused by the engine
                self._draining.add(self._names.pop(name))
            return
        try:
            newer = await self._load_newer(vllm, name, loaded)
        except _UNREACHABLE as error:
            log.warning("%s stays %s: %s", name, loaded.cached.digest.brief, error.message)
        except AdaptryError as error:
            loaded.is_withdrawn = isinstance(error, Withdrawn)
            self._refuse(name, error)
            self._drain(vllm, name)
        else:
            if newer is not None:
                self._switch(vllm, name, loaded, newer)

    async def _load_newer(
        self, vllm: InProcessVllm, name: str, loaded: ResolvedAdapter
    ) -> ResolvedAdapter | None:
        """Loads the version that the name means now; None if it is unchanged."""
        version = await asyncio.to_thread(self._config.registry.versions.get, loaded.ref)
        require_usable(version)
        if version.digest == loaded.cached.digest:
            return None
        newer = await self._prepare(vllm, name, loaded.ref)
        try:
            await vllm.load(newer.request)
        except AdaptryError:
            self._draining.add(newer)
            raise
        return newer

    def _switch(
        self, vllm: InProcessVllm, name: str, loaded: ResolvedAdapter, newer: ResolvedAdapter
    ) -> None:
        if vllm.loaded.get(name) is not loaded.request:  # unloaded, and perhaps resolved again, meanwhile
            self._draining.add(newer)
            return
        vllm.loaded[name] = newer.request
        self._names[name] = newer
        self._draining.add(loaded)
        log.info("%s is %s@%d now", name, newer.cached.version.name, newer.cached.version.number)

    async def _prepare(self, vllm: InProcessVllm, name: str, ref: Ref) -> ResolvedAdapter:
        """Resolves `ref`, fetches its files and checks that this engine serves them as trained. The caller
        owns the lease on the folder, through the result."""
        version = await asyncio.to_thread(self._config.registry.versions.get, ref)
        require_usable(version)
        profile = await self._profile_engine(vllm)
        await asyncio.to_thread(require_base_match, self._config.registry, version, profile.base)
        self._leases.acquire(version.digest)
        try:
            cached = await self._fetch(vllm, version)
            await asyncio.to_thread(require_compatible, cached, profile)
        except BaseException:
            self._leases.release(version.digest)
            raise
        label = loaded_name(name, cached.digest)
        self._load_counts[label] += 1
        request = self._config.make_request(
            numbered_name(label, self._load_counts[label]), vllm.new_id(), str(cached.path)
        )
        return ResolvedAdapter(ref, cached, request, used_at=self._config.clock())

    async def _fetch(self, vllm: InProcessVllm, version: VersionInfo) -> CachedAdapter:
        exact = version.revision_ref
        try:
            return await asyncio.to_thread(self._config.cache.acquire, self._config.registry, exact)
        except StorageFull:
            self._free_cache_space(vllm)
            raise

    async def _profile_engine(self, vllm: InProcessVllm) -> EngineProfile:
        """This vLLM's profile, computed once."""
        if self._engine_profile is None:
            config = self._config
            base = await asyncio.to_thread(
                identify_served_base, config.registry, vllm.model, vllm.revision, config.base
            )
            self._engine_profile = EngineProfile(vllm.runtime(config.version), base)
        return self._engine_profile

    def _free_cache_space(self, vllm: InProcessVllm) -> None:
        """Unloads the least recently used idle adapter; a later request resolves it again."""
        in_use = vllm.ids_in_use()
        idle = [
            (loaded.used_at, name)
            for name, loaded in self._names.items()
            if vllm.loaded.get(name) is loaded.request and loaded.lora_id not in in_use
        ]
        if idle:
            _, name = min(idle)
            log.info("%s makes room in the cache", name)
            self._drain(vllm, name)

    def _drain(self, vllm: InProcessVllm, name: str) -> None:
        vllm.loaded.pop(name, None)
        self._draining.add(self._names.pop(name))

    def _refuse(self, name: str, error: AdaptryError) -> None:
        self._refusals.add(name, error, self._config.clock())
        log.warning("%s is not served: %s", name, error.message)

    def _start_refreshing(self, vllm: InProcessVllm) -> None:
        if self._refresh_task is None or self._refresh_task.done():
            self._refresh_task = asyncio.get_running_loop().create_task(self._refresh_forever(vllm))

    async def _refresh_forever(self, vllm: InProcessVllm) -> None:
        while True:
            changed = await self._listener.wait(_MAX_WAIT)
            if changed:
                self._refusals.clear()  # refused names may be servable now
            try:
                await self.refresh(vllm, changed)
            except Exception:
                log.exception("looking after what is served failed")
            self._listener.subscribe(self._watched_adapters())
            await asyncio.sleep(self._config.refresh_interval)

    def _watched_adapters(self) -> list[AdapterName]:
        """The adapters whose events matter: loaded ones, and refused ones that may become servable."""
        names = self._refusals.names(self._config.clock())
        refused = (ref.name for name in names if (ref := parse_model_name(name)))
        return [*(loaded.ref.name for loaded in self._names.values()), *refused]
