"""What this vLLM serves out of the registry: resolved once, looked after from then on.

Every name that was resolved is asked about again whenever something happens in the registry, and now and then, since vLLM
itself never does. Where it means another version
by now, that one is loaded and takes the name in one step; where it means none that may be served, the name goes, and who
asks for it is told why. All of it runs on vLLM's event loop; whatever waits does so on threads.
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
    Incompatible,
    NotFound,
    StorageFull,
    Unauthenticated,
    Unavailable,
    Withdrawn,
)
from adaptry.core.refs import AdapterName, ByDigest, Ref
from adaptry.integrations.serving.cache.cache import Cache, Kept
from adaptry.integrations.serving.compatibility import Serving, require_base, require_served_as_trained
from adaptry.integrations.serving.event_listener import Ear
from adaptry.integrations.serving.limits import Pace, Refusals
from adaptry.integrations.serving.served_base import base_served
from adaptry.integrations.serving.vllm.draining import Holds, Leaving, Loaded
from adaptry.integrations.serving.vllm.engine import Vllm
from adaptry.integrations.serving.vllm.names import asked_for, loaded_as, numbered
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import require_usable

log = logging.getLogger("vllm.adaptry")

Request = Callable[[str, int, str], Any]
"""Makes vLLM's `LoRARequest` of a name, a number and a path. (`Any`: vLLM's own, wherever it is said here.)"""

_AT_LATEST = 5.0
"""Seconds without any news after which what the names mean is looked at all the same."""

_CANNOT_KNOW = (Unavailable, Unauthenticated, Incompatible)
"""Answers that say nothing about the adapter: what is loaded stays."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a resolver works with: a registry, a cache, vLLM's version and its kind of request; what is said of its base
    (`base_served`), and seconds: how many pass at least between two looks at what the names mean, how many what lost its name stays,
    and for how many a refusal holds. `clock` counts seconds."""

    registry: Registry
    cache: Cache
    request: Request
    version: str
    base: str | None = None
    every: float = 0.1
    linger: float = 10.0
    refused_for: float = 5.0
    clock: Callable[[], float] = time.monotonic


class Served:
    """One registry's adapters in one vLLM."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._refusals = Refusals(means.refused_for)
        self._pace = Pace(per_second=50)
        self._names: dict[str, Loaded] = {}
        self._holds = Holds(means.cache)
        self._leaving = Leaving(self._holds, means.linger, means.clock)
        self._times: Counter[str] = Counter()
        self._serving: Serving | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ear = Ear(means.registry)

    async def resolve(self, vllm: Vllm, name: str) -> Any:
        """What vLLM is to load for a name it does not know; None for a name that is no ref, or unknown to the registry.

        Otherwise raises why it is not served; the same again for a few seconds, without asking.
        """
        ref = asked_for(name)
        if ref is None:
            return None
        try:
            self._refusals.check(name, self._means.clock())
            loaded = await self._asked(vllm, name, ref)
        except NotFound:
            return None
        self._names[name] = loaded
        return loaded.request

    async def _asked(self, vllm: Vllm, name: str, ref: Ref) -> Loaded:
        self._pace.take(self._means.clock())
        self._watch(vllm)
        self._ear.listen_to([ref.name, *self._of_interest()])
        try:
            return await self._loadable(vllm, name, ref)
        except AdaptryError as error:
            self._refuse(name, error)
            raise

    async def look_after(self, vllm: Vllm, about: Collection[AdapterName] = ()) -> None:
        """One look at every name that is loaded, or at those of some adapters; and at what is leaving."""
        names = [name for name, loaded in self._names.items() if not about or loaded.ref.name in about]
        await asyncio.gather(*(self._follow(vllm, name) for name in names))
        in_use, now = vllm.in_use(), self._means.clock()
        for loaded in self._names.values():
            loaded.used_at = now if loaded.number in in_use else loaded.used_at
        await self._leaving.let_go(vllm)

    async def _follow(self, vllm: Vllm, name: str) -> None:
        loaded = self._names[name]
        if vllm.loaded.get(name) is not loaded.request:
            if not vllm.is_resolving(name):  # someone unloaded it, or the engine did not take it
                self._leaving.add(self._names.pop(name))
            return
        try:
            newer = await self._newer(vllm, name, loaded)
        except _CANNOT_KNOW as error:
            log.warning("%s stays %s: %s", name, loaded.kept.digest.brief, error.message)
        except AdaptryError as error:
            loaded.is_withdrawn = isinstance(error, Withdrawn)
            self._refuse(name, error)
            self._take_name(vllm, name)
        else:
            if newer is not None:
                self._switch(vllm, name, loaded, newer)

    async def _newer(self, vllm: Vllm, name: str, loaded: Loaded) -> Loaded | None:
        """What the name means by now, in the engine; None where it means what it did."""
        version = await asyncio.to_thread(self._means.registry.version, loaded.ref)
        require_usable(version)
        if version.digest == loaded.kept.digest:
            return None
        newer = await self._loadable(vllm, name, loaded.ref)
        try:
            await vllm.load(newer.request)
        except AdaptryError:
            self._leaving.add(newer)
            raise
        return newer

    def _switch(self, vllm: Vllm, name: str, loaded: Loaded, newer: Loaded) -> None:
        if vllm.loaded.get(name) is not loaded.request:  # unloaded, and maybe resolved anew, while we looked
            self._leaving.add(newer)
            return
        vllm.loaded[name] = newer.request
        self._names[name] = newer
        self._leaving.add(loaded)
        log.info("%s is %s@%d now", name, newer.kept.version.name, newer.kept.version.number)

    async def _loadable(self, vllm: Vllm, name: str, ref: Ref) -> Loaded:
        """What `ref` means now: here, and found to be served as trained. Its folder is held until it is let go."""
        version = await asyncio.to_thread(self._means.registry.version, ref)
        require_usable(version)
        serving = await self._engine(vllm)
        await asyncio.to_thread(require_base, self._means.registry, version, serving.base)
        self._holds.add(version.digest)
        try:
            kept = await self._fetched(vllm, version)
            await asyncio.to_thread(require_served_as_trained, kept, serving)
        except BaseException:
            self._holds.drop(version.digest)
            raise
        label = loaded_as(name, kept.digest)
        self._times[label] += 1
        request = self._means.request(numbered(label, self._times[label]), vllm.new_id(), str(kept.path))
        return Loaded(ref, kept, request, used_at=self._means.clock())

    async def _fetched(self, vllm: Vllm, version: VersionInfo) -> Kept:
        exact = Ref(version.name, ByDigest(version.digest.hex))
        try:
            return await asyncio.to_thread(self._means.cache.path_of, self._means.registry, exact)
        except StorageFull:
            self._make_room(vllm)
            raise

    async def _engine(self, vllm: Vllm) -> Serving:
        """What runs here; its base is looked at once."""
        if self._serving is None:
            means = self._means
            base = await asyncio.to_thread(base_served, means.registry, vllm.model, vllm.revision, means.base)
            self._serving = Serving(vllm.runtime(means.version), base)
        return self._serving

    def _make_room(self, vllm: Vllm) -> None:
        """Takes its name from what was not used for longest; who asks for it later has it resolved again."""
        in_use = vllm.in_use()
        idle = [
            (loaded.used_at, name)
            for name, loaded in self._names.items()
            if vllm.loaded.get(name) is loaded.request and loaded.number not in in_use
        ]
        if idle:
            _, name = min(idle)
            log.info("%s makes room in the cache", name)
            self._take_name(vllm, name)

    def _take_name(self, vllm: Vllm, name: str) -> None:
        vllm.loaded.pop(name, None)
        self._leaving.add(self._names.pop(name))

    def _refuse(self, name: str, why: AdaptryError) -> None:
        self._refusals.add(name, why, self._means.clock())
        log.warning("%s is not served: %s", name, why.message)

    def _watch(self, vllm: Vllm) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._look_again_and_again(vllm))

    async def _look_again_and_again(self, vllm: Vllm) -> None:
        while True:
            heard = await self._ear.wait(_AT_LATEST)
            if heard:
                self._refusals.clear()  # what was refused may be served by now
            try:
                await self.look_after(vllm, heard)
            except Exception:
                log.exception("looking after what is served failed")
            self._ear.listen_to(self._of_interest())
            await asyncio.sleep(self._means.every)

    def _of_interest(self) -> list[AdapterName]:
        """Whose events matter: what is loaded, and what was refused and may be served by now."""
        names = self._refusals.names(self._means.clock())
        refused = (ref.name for name in names if (ref := asked_for(name)))
        return [*(loaded.ref.name for loaded in self._names.values()), *refused]
