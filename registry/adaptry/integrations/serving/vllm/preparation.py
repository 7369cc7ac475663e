"""Prepares versions for this vLLM: checks their base, fetches their files, stacks several, and checks that
the engine serves them as trained.

While the registry is unreachable, a version is prepared if its complete files are on this machine and it was
found to fit the base before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

from adaptry.core.errors import StorageFull, Unavailable
from adaptry.core.refs import Ref
from adaptry.core.stack_ref import StackRef
from adaptry.integrations.serving.cache.cache import CachedAdapter
from adaptry.integrations.serving.compatibility import (
    EngineProfile,
    require_base_match,
    require_compatible,
    require_compatible_folder,
)
from adaptry.integrations.serving.served_base import identify_served_base
from adaptry.integrations.serving.vllm.draining_adapters import LeaseRefCounts, ResolvedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.load_trials import LoadTrials
from adaptry.integrations.serving.vllm.lookup import RefLookup
from adaptry.integrations.serving.vllm.names import loaded_name, numbered_name
from adaptry.integrations.serving.vllm.resolver_config import ResolverConfig
from adaptry.integrations.serving.vllm.stacks import Stack
from adaptry.integrations.serving.vllm.worker import VllmWorker
from adaptry.registry.records import VersionInfo

log = logging.getLogger("vllm.adaptry")

Written = TypeVar("Written")


class AdapterPreparation:
    """Prepares versions for one vLLM. `free_space` unloads an idle adapter when the cache is full."""

    def __init__(
        self,
        config: ResolverConfig,
        lookup: RefLookup,
        leases: LeaseRefCounts,
        free_space: Callable[[InProcessVllm], None],
        trials: LoadTrials,
    ) -> None:
        self._config = config
        self._lookup = lookup
        self._leases = leases
        self._free_space = free_space
        self._trials = trials
        self._load_counts: Counter[str] = Counter()
        self._profiling: asyncio.Task[EngineProfile] | None = None

    async def prepare(
        self,
        vllm: InProcessVllm,
        worker: VllmWorker,
        name: str,
        target: StackRef,
        versions: Sequence[VersionInfo],
    ) -> ResolvedAdapter:
        """The request that makes vLLM load the versions of the target's parts under `name`, recorded in the
        journal of loads. Through the result, the caller owns the leases on the folders.

        Raises `CheckFailed` for another base, an adapter that this engine does not serve as trained, or a
        stack that would not be exact; `CrashPause` for one with which the engine has ended repeatedly;
        `Unavailable` and `StorageFull`.
        """
        profile = await asyncio.shield(self.profile_engine(vllm, worker))
        for version in versions:
            await worker.run(self._require_base, version, profile)
        async with AsyncExitStack() as failure:
            parts: list[CachedAdapter] = []
            for version in versions:
                self._leases.acquire(version.digest)
                failure.callback(self._leases.release, version.digest)
                parts.append(await self._make_room_for(vllm, worker.run(self._acquire, version)))
                await worker.run(require_compatible, parts[-1], profile)
            folder, key = parts[0].path, None
            if target.single is None:
                stack = Stack.of(parts, target.weights)
                key = stack.key
                self._leases.acquire_stack(key)
                failure.callback(self._leases.release_stack, key)
                folder = await self._make_room_for(vllm, worker.run(self._stack, name, stack, profile))
            trial = await self._trials.begin(worker, name, parts, key)
            failure.pop_all()
        label = loaded_name(name, target, [part.digest for part in parts])
        self._load_counts[label] += 1
        request = self._config.make_request(
            numbered_name(label, self._load_counts[label]), vllm.new_id(), str(folder)
        )
        trial.adapter = ResolvedAdapter(
            name,
            target,
            tuple(parts),
            request,
            used_at=self._config.clock(),
            since=self._config.now(),
            stack_key=key,
        )
        return trial.adapter

    def _stack(self, name: str, stack: Stack, profile: EngineProfile) -> Path:
        """The folder in which several adapters are stacked as one."""
        folder = self._config.cache.stacks.lease(
            stack.key, stack.digests, lambda empty, reserve: stack.write(empty, reserve, profile.base)
        )
        require_compatible_folder(folder, name, profile)
        return folder

    def _require_base(self, version: VersionInfo, profile: EngineProfile) -> None:
        """Like `require_base_match`. While the registry is unreachable, earlier results count."""
        last_known, exact = self._lookup.last_known, Ref.of_revision(version.name, version.digest)
        known = last_known.find(exact)
        if known is not None and self._lookup.is_away and profile.base.id in known.bases:
            return
        require_base_match(self._config.registry, version, profile.base)
        if not self._lookup.is_away:
            last_known.confirm(exact, version, profile.base.id)

    async def _make_room_for(self, vllm: InProcessVllm, writing: Awaitable[Written]) -> Written:
        """Runs `writing`. If the cache is full, unloads an idle adapter, so that the next attempt has its
        space."""
        try:
            return await writing
        except StorageFull:
            self._free_space(vllm)
            raise

    def _acquire(self, version: VersionInfo) -> CachedAdapter:
        """The version's files, from the registry; while it is unreachable, those in the cache."""
        config, failure = self._config, None
        if not self._lookup.is_away:
            try:
                return config.cache.acquire(config.registry, version.revision_ref)
            except StorageFull:
                raise
            except Unavailable as error:
                failure = error
        if cached := config.cache.acquire_local(version.digest):
            return cached
        raise failure or Unavailable(
            f"the registry cannot be reached, and this machine does not have all files of {version.label}"
        )

    def profile_engine(self, vllm: InProcessVllm, worker: VllmWorker) -> asyncio.Task[EngineProfile]:
        """This vLLM's profile. It is computed once, beginning at vLLM's start, because the base's folder may
        have other weights later. After an error, it is computed again at the next call."""
        task = self._profiling
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._profiling = asyncio.get_running_loop().create_task(self._profile(vllm, worker))
            task.add_done_callback(_log_failure)
        return task

    async def _profile(self, vllm: InProcessVllm, worker: VllmWorker) -> EngineProfile:
        vllm.require_adapters()
        config = self._config
        base = await worker.run(
            identify_served_base, config.registry, vllm.model, vllm.revision, config.base, config.started_at
        )
        worker.note_base(base.id)
        return EngineProfile(vllm.runtime(config.version), base)


def _log_failure(task: asyncio.Task[EngineProfile]) -> None:
    """Logs a problem that prevents every load, before it causes the first request for an adapter to be
    refused.
    """
    if not task.cancelled() and (error := task.exception()):
        log.warning("adapters are not served yet: %s", error)
