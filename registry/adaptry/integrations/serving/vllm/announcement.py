"""Resolves refs for this worker, and reports each version to the registry before it is loaded.

The reply to a report can change the version that a ref selects here: through a recall, or through a rollout
in which this worker takes part. So the registry knows of every version that is served, and no withdrawn
version is loaded.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from adaptry.core.errors import Unavailable, Withdrawn
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.refs import Ref
from adaptry.core.stack_ref import StackRef
from adaptry.integrations.serving.vllm.lookup import UNREACHABLE, RefLookup, Resolution
from adaptry.integrations.serving.vllm.worker import VllmWorker
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import require_usable
from adaptry.registry.workers import RolloutAssignment

log = logging.getLogger("vllm.adaptry")

_MAX_REPLANS = 4
"""How often a name is looked up before it is loaded, since the reply to a report can change its target."""


class LoadAnnouncer:
    """Looks refs up by `lookup`, and announces loads through a worker."""

    def __init__(self, lookup: RefLookup) -> None:
        self.lookup = lookup

    @contextlib.asynccontextmanager
    async def announced(
        self, worker: VllmWorker, name: str, target: StackRef
    ) -> AsyncIterator[list[VersionInfo]]:
        """The usable versions that the target's parts select on this worker. While the block loads them, they
        are reported as loading under the name."""
        async with contextlib.AsyncExitStack() as stack:
            parts = [self._announced_part(worker, name, ref) for ref in target.refs]
            yield [(await stack.enter_async_context(part)).version for part in parts]

    async def require_usable_parts(self, worker: VllmWorker, target: StackRef) -> None:
        """Raises `Withdrawn` if a part is withdrawn, before any part is reported. (To prove a recall, the
        worker requests the name, and delays reports until the request is refused.)"""
        for ref in target.refs:
            await self._resolve(worker, ref, None)

    async def save_last_known(self, worker: VllmWorker) -> None:
        try:
            await worker.run(self.lookup.last_known.save)
        except Unavailable as error:
            log.warning("the targets of names could not be saved: %s", error.message)

    @contextlib.asynccontextmanager
    async def _announced_part(self, worker: VllmWorker, name: str, ref: Ref) -> AsyncIterator[Resolution]:
        """The version that the ref selects now, after reporting it as loading. The reply to the report can
        change it."""
        for _ in range(_MAX_REPLANS):
            assignment = rollout_assignment(worker, name, ref)
            resolution = await self._resolve(worker, ref, assignment)
            version = resolution.version
            async with self._loading(worker, name, ref, resolution):
                recalled = {one.digest for one in worker.reply.withdrawn}
                if rollout_assignment(worker, name, ref) == assignment and version.digest not in recalled:
                    await self._remember(
                        worker, ref if assignment is None else version.revision_ref, resolution
                    )
                    yield resolution
                    return
        raise Unavailable(f"the target of {name} keeps changing; try again")

    async def _remember(self, worker: VllmWorker, ref: Ref, resolution: Resolution) -> None:
        """Saves the target of the ref on disk. This happens after the report, because the registry must have
        it first."""
        if resolution.known is None:
            version = resolution.version
            for each in (ref, version.revision_ref):
                self.lookup.last_known.confirm(each, version)
            await self.save_last_known(worker)

    async def _resolve(
        self, worker: VllmWorker, ref: Ref, assignment: RolloutAssignment | None
    ) -> Resolution:
        """The version that the ref selects, or the rollout's. Raises `Withdrawn` if it may not be served."""
        resolution = await worker.run(self.lookup.resolve, ref)
        if assignment is not None:
            resolution = await worker.run(
                self.lookup.resolve, Ref.of_revision(assignment.name, assignment.digest)
            )
        version = resolution.version
        if resolution.known is None:
            await worker.note_state(version)
            if version.state in WITHDRAWN:
                self.lookup.last_known.confirm(ref, version)
        require_usable(version)
        recalled = worker.withdrawn.get(version.digest)
        if recalled is not None and recalled != version.name:
            raise Withdrawn(
                f"{version.label} has the same files as a version of {recalled} that was withdrawn"
            )
        if recalled is not None:
            raise Withdrawn(
                f"{version.label} was withdrawn: the registry reported that earlier, and now returns an older"
                " state. Is it a replica that lags, or a copy restored from an old backup?"
            )
        return resolution

    @contextlib.asynccontextmanager
    async def _loading(
        self, worker: VllmWorker, name: str, ref: Ref, resolution: Resolution
    ) -> AsyncIterator[None]:
        """Reports the load before the block. Raises `Unavailable` if the registry has become unreachable
        since the lookup and did not already know that the version may be served here."""
        version = resolution.version
        async with contextlib.AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(worker.loading(name, version, lambda: self.lookup.is_away))
            except UNREACHABLE as error:
                self.lookup.note_failure(error)
            if resolution.known is None and not worker.is_accounted_for(name, version):
                known = await worker.run(self.lookup.resolve, ref)
                if known.known is None or known.version.digest != version.digest:
                    raise Unavailable(f"the registry was briefly unreachable; request {name} again")
            yield


def rollout_assignment(worker: VllmWorker, name: str, ref: Ref) -> RolloutAssignment | None:
    """The rollout that a name follows on this worker. Refs inside a stack follow none."""
    return worker.rollout_assignment(ref) if name == str(ref) else None
