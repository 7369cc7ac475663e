"""Resolves the registry's adapters for this vLLM, and refreshes them afterwards.

vLLM never resolves a loaded name again, so every resolved name is refreshed after each event in the registry,
and periodically. If a name now means another version, that one is loaded and replaces the old one atomically.
If the version may no longer be served, the name is removed, and requests for it get the reason. Each load is
reported before it begins (`worker`). Everything runs on vLLM's event loop; blocking calls run on threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

from adaptry.core.errors import AdaptryError, Conflict, NotFound, RevisionNotFound, Withdrawn
from adaptry.core.refs import AdapterName
from adaptry.core.stack_ref import StackRef
from adaptry.integrations.serving.event_listener import EventListener
from adaptry.integrations.serving.limits import NegativeCache, RateLimiter
from adaptry.integrations.serving.vllm.adapter_use import AdapterUse
from adaptry.integrations.serving.vllm.announcement import LoadAnnouncer, rollout_assignment
from adaptry.integrations.serving.vllm.cache_space import CacheSpace
from adaptry.integrations.serving.vllm.draining_adapters import (
    DrainingAdapters,
    LeaseRefCounts,
    ResolvedAdapter,
)
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.foreign_adapters import ForeignAdapters
from adaptry.integrations.serving.vllm.idle_adapters import name_to_unload
from adaptry.integrations.serving.vllm.load_trials import LoadTrials, suspects_last
from adaptry.integrations.serving.vllm.lookup import UNREACHABLE, RefLookup
from adaptry.integrations.serving.vllm.names import PLUGIN_ANSWER, PLUGIN_PROBE, parse_model_name
from adaptry.integrations.serving.vllm.observed_requests import observe_requests
from adaptry.integrations.serving.vllm.pinned_names import keep_loaded, require_slots
from adaptry.integrations.serving.vllm.preparation import AdapterPreparation
from adaptry.integrations.serving.vllm.problems import NameProblems
from adaptry.integrations.serving.vllm.report_heartbeat import keep_reporting
from adaptry.integrations.serving.vllm.resolver_config import ResolverConfig
from adaptry.integrations.serving.vllm.snapshot import take_snapshot
from adaptry.integrations.serving.vllm.worker import EngineSnapshot, VllmWorker
from adaptry.integrations.serving.worker.last_known import LastKnownTargets

log = logging.getLogger("vllm.adaptry")

_MAX_WAIT = 5.0  # seconds without an event after which all names are refreshed
_MAX_NAME = 256  # the limit of reports
_REFUSAL_SECONDS = 10.0  # the maximum duration of a request that should be refused


class AdapterResolver:
    """Serves one registry's adapters in one vLLM."""

    def __init__(self, config: ResolverConfig) -> None:
        self._config = config
        self._refusals = NegativeCache(config.refusal_ttl)
        self._rate_limiter = RateLimiter(per_second=50)
        self._names: dict[str, ResolvedAdapter] = {}
        self._problems = NameProblems()
        self._own_requests: Counter[str] = Counter()
        self._foreign = ForeignAdapters()
        self._leases = LeaseRefCounts(config.cache)
        self._draining = DrainingAdapters(self._leases, config.linger, config.clock)
        self._trials = LoadTrials(self._loaded)
        self.use: AdapterUse = AdapterUse(self._loaded, config.clock, config.now)
        """The usage of the loaded versions."""
        self._space = CacheSpace(
            config, self._names, self._draining, lambda vllm, name: self._drain(vllm, name, self._names[name])
        )
        self._refresh_task: asyncio.Task[None] | None = None
        self._listener = EventListener(config.registry)
        self._worker: VllmWorker | None = None

    def _loaded(self) -> tuple[ResolvedAdapter, ...]:
        return (*self._names.values(), *self._draining.adapters)

    def start(self, vllm: InProcessVllm) -> VllmWorker:
        """Starts reporting and refreshing on the running event loop. Idempotent. Raises `Conflict` if another
        engine of this machine has the configured name; `Invalid` for more pinned names than slots;
        `Unavailable`."""
        if self._worker is None:
            self.require_slots(vllm)
            self._worker = self._make_worker(vllm)
            observe_requests(vllm.models.engine_client, (self.use, self._trials))
            log.info("reporting to the registry as %s", self._worker.identity.name)
            self._preparation.profile_engine(vllm, self._worker)
        self._start_refreshing(vllm)
        return self._worker

    def require_slots(self, vllm: InProcessVllm) -> None:
        """Raises `Invalid` if there are more pinned names than slots for adapters."""
        require_slots(self._config.pin, vllm)

    @property
    def worker(self) -> VllmWorker | None:
        """The worker that reports; None before `start`."""
        return self._worker

    @property
    def oldest_confirmation_age(self) -> timedelta:
        """The longest time since the registry confirmed the target of a served name."""
        refs = (ref for loaded in self._names.values() for ref in loaded.target.refs)
        known = map(self.lookup.last_known.find, refs)
        return max((self.lookup.last_known.age(one) for one in known if one), default=timedelta())

    @property
    def cannot_report(self) -> str | None:
        """Why the registry accepts no reports from this worker; None if it does."""
        return self._worker.cannot_report if self._worker else None

    @functools.cached_property
    def lookup(self) -> RefLookup:
        """Looks names up. It is created at its first use, because it reads the file of last known targets."""
        config = self._config
        last_known = LastKnownTargets(config.cache.root, config.known_as, config.max_age, config.now)
        return RefLookup(config.registry, config.cache, last_known)

    @functools.cached_property
    def _announcer(self) -> LoadAnnouncer:
        return LoadAnnouncer(self.lookup)

    @functools.cached_property
    def _preparation(self) -> AdapterPreparation:
        return AdapterPreparation(self._config, self.lookup, self._leases, self._space.free, self._trials)

    def _make_worker(self, vllm: InProcessVllm) -> VllmWorker:
        config, loop = self._config, asyncio.get_running_loop()

        def is_refused(name: str) -> bool:
            future = asyncio.run_coroutine_threadsafe(self._is_refused(vllm, name), loop)
            try:
                return future.result(_REFUSAL_SECONDS)
            except TimeoutError:
                future.cancel()
                return False

        return VllmWorker(
            config.registry,
            config.cache,
            config.version,
            lambda: self._take_snapshot(vllm),
            is_refused,
            name=config.worker_name,
            max_age=int(config.max_age.total_seconds()),
            base=config.base or vllm.model,
        )

    async def resolve(self, vllm: InProcessVllm, name: str) -> Any:
        """The request that makes vLLM load an unknown name; None if it is not a ref, or not in the registry.

        Raises the reason if the version may not be served, or if the adapter has no such version; the refusal
        is cached for a few seconds.
        """
        target = parse_model_name(name)
        if target is None or len(name) > _MAX_NAME:
            return None
        if name == PLUGIN_PROBE:
            raise Conflict(f"{PLUGIN_ANSWER}{self._worker_name(vllm)}")
        self.start(vllm)
        try:
            self._refusals.check(name, self._config.clock())
            loaded = await self._resolve_limited(vllm, name, target)
        except RevisionNotFound:
            raise  # the worker may see the adapter, so other resolvers have no adapter of this name
        except NotFound:
            return None
        self._names[name] = loaded
        self._problems.resolve(name)
        return loaded.request

    def _worker_name(self, vllm: InProcessVllm) -> str:
        """The worker's name; `unnamed` if it cannot start; it tries again with the next request."""
        try:
            return self.start(vllm).identity.name
        except AdaptryError as error:
            log.warning("adapters are not served yet: %s", error.message)
            return "unnamed"

    async def _resolve_limited(self, vllm: InProcessVllm, name: str, target: StackRef) -> ResolvedAdapter:
        is_known = all(map(self.lookup.last_known.find, target.refs))
        if name not in self._own_requests and not is_known:
            self._rate_limiter.acquire(self._config.clock())
        self._listener.subscribe([*(ref.name for ref in target.refs), *self._watched_adapters()])
        try:
            prepare = functools.partial(self._prepare_cold, vllm, name, target)
            return await (
                prepare() if name in self._own_requests else self._space.prepare_with_space(vllm, prepare)
            )
        except AdaptryError as error:
            self._refuse(name, error)
            raise

    async def _prepare_cold(self, vllm: InProcessVllm, name: str, target: StackRef) -> ResolvedAdapter:
        """Prepares the version that the name selects. If a rollout's version fails, the one without the
        rollout is used."""
        worker = self.start(vllm)
        if target.single is None:
            await self._announcer.require_usable_parts(worker, target)
        while True:
            try:
                async with self._announcer.announced(worker, name, target) as versions:
                    self._make_room(vllm, name, target)
                    return await self._preparation.prepare(vllm, worker, name, target, versions)
            except AdaptryError as error:
                if not self._note_rollout_failure(worker, target, error):
                    raise

    def _make_room(self, vllm: InProcessVllm, name: str, target: StackRef) -> None:
        """Unloads an idle name if `name` would exceed the limits. Called only when the registry has confirmed
        that `name` may be served, so that unknown names unload nothing.
        """
        if name not in self._names and (excess := name_to_unload(self._config, vllm, self._names, target)):
            self._drain(vllm, excess, self._names[excess])

    def _note_rollout_failure(self, worker: VllmWorker, target: StackRef, error: AdaptryError) -> bool:
        """Stops the rollout that the target follows here. Returns whether there is one."""
        return target.single is not None and worker.note_rollout_failure(target.single, error)

    async def refresh(self, vllm: InProcessVllm, about: Collection[AdapterName] = ()) -> None:
        """Refreshes every loaded name, or those of the adapters `about`; reports; unloads drained adapters,
        proves recalls, loads names that should be preloaded, and keeps the pinned ones in the engine."""
        worker = self.start(vllm)
        with contextlib.suppress(*UNREACHABLE):
            await worker.run(self.lookup.probe)
        names = [name for name, loaded in self._names.items() if not about or loaded.adapters & set(about)]
        await asyncio.gather(*(self._refresh_name(vllm, name) for name in names))
        self.use.note_in_use(vllm.ids_in_use())
        await self._trials.settle(vllm, worker)
        await self._report(worker)
        self._drain_withdrawn(vllm, worker)
        await self._draining.unload_drained(vllm)
        await self._foreign.unload_unused(vllm)
        await self._report(worker)
        try:
            await worker.prove_recalls()
        except UNREACHABLE as error:
            self.lookup.note_failure(error)
        await self._preload(vllm, worker)

    async def _preload(self, vllm: InProcessVllm, worker: VllmWorker) -> None:
        """Requests each pinned or preloaded name that is not loaded. A refused name is requested again when
        its refusal is no longer cached."""
        for name in suspects_last(worker, (*self._config.pin, *self._config.preload)):
            is_requested = vllm.is_resolving(name) and name not in self._own_requests  # may take long
            if name not in vllm.loaded and not is_requested:
                await self._find_refusal(vllm, name)
                await self._trials.settle(vllm, worker)  # the next one may end the engine
        await keep_loaded(self._config.pin, self._names, vllm)

    async def _report(self, worker: VllmWorker) -> None:
        """Reports, unless the registry is unreachable; saves the targets of names."""
        try:
            if not self.lookup.is_away:
                await worker.report()
        except UNREACHABLE as error:
            self.lookup.note_failure(error)
        await self._announcer.save_last_known(worker)

    async def _refresh_name(self, vllm: InProcessVllm, name: str) -> None:
        loaded = self._names[name]
        if vllm.loaded.get(name) is not loaded.request:
            if not vllm.is_resolving(name):  # unloaded by someone else, or refused by the engine
                self._note_refused_load(vllm, loaded)
                self._draining.add(self._names.pop(name))
            return
        try:
            newer = await self._load_newer(vllm, name, loaded)
        except AdaptryError as error:
            last_known = self.lookup.last_known
            known = map(last_known.find, loaded.target.refs)
            is_fresh = all(one is None or last_known.is_fresh(one) for one in known)
            if isinstance(error, UNREACHABLE) and is_fresh:
                if self.lookup.is_away or self._problems.record_outdated(name, error):
                    log.warning("%s is not refreshed: %s", name, error.message)
                return
            self._refuse(name, error)
            self._drain(vllm, name, loaded)
        else:
            self._problems.resolve(name)
            if newer is not None:
                self._switch(vllm, name, loaded, newer)

    def _note_refused_load(self, vllm: InProcessVllm, loaded: ResolvedAdapter) -> None:
        ref = loaded.target.single
        worker = self.start(vllm)
        assignment = rollout_assignment(worker, loaded.name, ref) if ref else None
        if ref and assignment and assignment.digest == loaded.digests[0]:
            reason = f"vLLM no longer has {loaded.parts[0].version.label}, or did not load it; see its log"
            worker.note_rollout_failure(ref, Conflict(reason))

    async def _load_newer(
        self, vllm: InProcessVllm, name: str, loaded: ResolvedAdapter
    ) -> ResolvedAdapter | None:
        """Loads the version that the name selects now; None if it is unchanged."""
        worker, target = self.start(vllm), loaded.target
        while True:
            try:
                async with self._announcer.announced(worker, name, target) as versions:
                    if tuple(version.digest for version in versions) == loaded.digests:
                        return None
                    newer = await self._preparation.prepare(vllm, worker, name, target, versions)
                    try:
                        await vllm.load(newer.request)
                    except AdaptryError:
                        self._draining.add(newer)
                        raise
                    return newer
            except AdaptryError as error:
                if not self._note_rollout_failure(worker, target, error):
                    raise

    def _switch(
        self, vllm: InProcessVllm, name: str, loaded: ResolvedAdapter, newer: ResolvedAdapter
    ) -> None:
        if vllm.loaded.get(name) is not loaded.request:  # unloaded, perhaps resolved again
            self._draining.add(newer)
            return
        vllm.loaded[name] = newer.request
        self._names[name] = newer
        self._draining.add(loaded)
        log.info("%s is %s now", name, " and ".join(part.version.label for part in newer.parts))

    def _drain(self, vllm: InProcessVllm, name: str, loaded: ResolvedAdapter) -> None:
        """Removes the name from the engine. No effect if it was removed or resolved again meanwhile."""
        if self._names.get(name) is loaded:
            vllm.loaded.pop(name, None)
            self._draining.add(self._names.pop(name))

    def _drain_withdrawn(self, vllm: InProcessVllm, worker: VllmWorker) -> None:
        """Removes the names of versions that the registry withdrew, including those that others loaded."""
        for name, loaded in list(self._names.items()):
            if worker.withdrawn.keys() & set(loaded.digests) and vllm.loaded.get(name) is loaded.request:
                self._drain(vllm, name, loaded)
        self._foreign.remove_withdrawn(vllm, self._names, worker.withdrawn)

    def _take_snapshot(self, vllm: InProcessVllm) -> EngineSnapshot:
        found = take_snapshot(
            vllm,
            self._names,
            self._draining.adapters,
            self._foreign.requests,
            self._problems.reasons,
            self._config.now(),
        )
        return replace(found, last_event=self._listener.seq)

    async def _is_refused(self, vllm: InProcessVllm, name: str) -> bool:
        """Whether vLLM refuses a request for the name because its version is withdrawn."""
        return isinstance(await self._find_refusal(vllm, name), Withdrawn)

    async def _find_refusal(self, vllm: InProcessVllm, name: str) -> BaseException | None:
        """Like `InProcessVllm.find_refusal`, for a request without a waiting client, which is not limited and
        does not wait for room in the cache."""
        self._own_requests += Counter((name,))
        try:
            return await vllm.find_refusal(name)
        finally:
            self._own_requests -= Counter((name,))

    def _refuse(self, name: str, error: AdaptryError) -> None:
        self._refusals.add(name, error, self._config.clock())
        if isinstance(error, NotFound):  # vLLM's own answer has no reason; clients may request any name
            log.info("%s is not served: %s", name, error.message)
            return
        if self._problems.record_refused(name, error):  # names to preload are tried every few seconds
            log.warning("%s is not served: %s", name, error.message)

    def _start_refreshing(self, vllm: InProcessVllm) -> None:
        if self._refresh_task is None or self._refresh_task.done():
            self._refresh_task = asyncio.get_running_loop().create_task(self._refresh_forever(vllm))

    async def _refresh_forever(self, vllm: InProcessVllm) -> None:
        worker = self.start(vllm)
        async with keep_reporting(lambda: self._report(worker), self._config.report_interval):
            await self._preload(vllm, worker)
            while True:
                changed = await self._listener.wait(_MAX_WAIT)
                if changed:
                    self._refusals.clear()  # refused names may be servable now
                    self._problems.clear()
                try:
                    await self.refresh(vllm, changed)
                except Exception:
                    log.exception("refreshing the served versions failed")
                self._listener.subscribe(self._watched_adapters())
                await asyncio.sleep(self._config.refresh_interval)

    def _watched_adapters(self) -> list[AdapterName]:
        """The adapters whose events matter: loaded ones, and refused ones that may become servable."""
        names = self._refusals.names(self._config.clock())
        refused = (ref for name in names if (target := parse_model_name(name)) for ref in target.refs)
        loaded = (ref for one in self._names.values() for ref in one.target.refs)
        return [ref.name for ref in (*loaded, *refused)]
