"""Executes the actions of a plan on an engine: fetch and check the files, load the adapter, test it.

If the engine cannot replace an adapter under its name, the new version is first loaded under a trial name
next to the old one, provided a slot is free, and tested there. A version that the engine refuses therefore
never replaces one that works. Behind the proxy every version is loaded under its trial name, and the public
names are routed to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from adaptry.core.errors import AdaptryError, CheckFailed, Conflict, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import ByDigest, Ref
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.compatibility import EngineProfile, require_base_match, require_compatible
from adaptry.integrations.serving.engines import Engine, EngineDisconnect, EngineTimeout
from adaptry.integrations.serving.follow.plan import FollowAction, LoadAction, SwapAction, UnloadAction
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo


def version_label(version: VersionInfo) -> str:
    return version.label


def trial_name(version: VersionInfo) -> str:
    """The name under which a version is tested before it gets its public name."""
    return str(Ref(version.name, ByDigest(version.digest.hex[:12])))


@dataclass(frozen=True, slots=True)
class PlanExecutor:
    """Executes one action at a time. `engine_profile` is None while the registry is down: then only cached
    versions are loaded, without a check, because they were checked when they were first served."""

    registry: Registry
    engine: Engine
    cache: Cache
    state_file: StateFile
    engine_profile: EngineProfile | None
    log: Callable[[str], None]

    def apply(self, action: FollowAction, has_room: bool) -> None:
        """Executes `action`. Raises `Unavailable` if the engine or the registry does not answer,
        `EngineTimeout` if the engine does not answer this request, and the error with which a version was
        refused."""
        match action:
            case UnloadAction(actual):
                self._unload(actual.served_as)
                self.log(f"unloaded {actual.served_as}")
            case LoadAction(desired):
                self._serve(desired.served_as, desired.version)
                self.log(f"loaded {desired.served_as}: {version_label(desired.version)}")
            case SwapAction(desired, _):
                self._swap(desired.served_as, desired.version, has_room)
                self.log(f"{desired.served_as} is now {version_label(desired.version)}")

    def _fetch_compatible(self, version: VersionInfo) -> Path:
        """Leases the verified files of a version, after checking that this engine serves it as trained."""
        if self.engine_profile is None:
            cached = self.cache.acquire_local(version.digest)
            if cached is None:
                raise Unavailable(
                    f"the files of {version_label(version)} are missing or damaged on this machine, and the"
                    " registry cannot be reached"
                )
            return cached.path
        require_base_match(self.registry, version, self.engine_profile.base)
        cached = self.cache.acquire(self.registry, version.revision_ref)
        if not self.engine.is_prepared(cached.path):
            require_compatible(cached, self.engine_profile)
        return cached.path

    def _serve(self, name: str, version: VersionInfo) -> None:
        path = self._fetch_compatible(version)
        if self.engine.can_alias:
            loaded_as = trial_name(version)
            self._load(loaded_as, version, path)
            self._record_load(name, version)
            self.engine.alias(name, loaded_as)
            self._record_path(name, path)
        else:
            self._load(name, version, path)

    def _load(self, name: str, version: VersionInfo, path: Path) -> None:
        self._record_load(name, version)
        self.engine.load(name, path)
        self._record_path(name, path)
        try:
            self.engine.require_loaded(name, version.digest)
            self.engine.require_working(name)
        except (CheckFailed, EngineTimeout):
            with contextlib.suppress(Conflict, Unavailable):  # it is served under other names, or still busy
                self._unload(name)
            raise

    def _record_load(self, name: str, version: VersionInfo) -> None:
        """Records on disk that the engine may have the version from now on. If this fails, restores the state
        in memory and raises."""
        self.cache.hold(version.digest, self.engine.address, name)
        now = self.state_file.state
        ours = dict(now.ours)
        now.ours[name] = version
        try:
            self.state_file.save()
        except Unavailable:
            now.ours = ours
            raise

    def _record_path(self, name: str, path: Path) -> None:
        """Records that the name is loaded from `path`: engines that cannot list paths read it after a
        restart of the worker."""
        self.state_file.state.names[name] = str(path)
        self.state_file.save_if_possible()

    def _swap(self, name: str, version: VersionInfo, has_room: bool) -> None:
        before = self.state_file.state.ours.get(name)
        if self.engine.can_alias:
            if before and not has_room:
                self.engine.suspend(name)
                self._unload(trial_name(before))
            self._serve(name, version)
            return
        path = self._fetch_compatible(version)
        trial = trial_name(version) if has_room and not self.engine.can_replace else None
        if trial:
            self._load(trial, version, path)
        try:
            if not self.engine.can_replace:
                self._unload(name)
            self._load(name, version, path)
        except CheckFailed:
            self._roll_back(name, before)
            raise
        except (EngineTimeout, EngineDisconnect):
            # The engine may be busy with the name, or have ended; the next pass loads `before` again.
            if before:
                self.state_file.state.ours[name] = before
            raise
        finally:
            if trial:
                self._unload(trial)

    def _roll_back(self, name: str, before: VersionInfo | None) -> None:
        """Loads the previous version again, if its files are still cached."""
        if before is None:
            return
        with contextlib.suppress(AdaptryError):
            if cached := self.cache.acquire_local(before.digest):
                self._load(name, before, cached.path)

    def _unload(self, name: str) -> None:
        self.engine.unload(name)
        self.state_file.state.ours.pop(name, None)
        self.state_file.state.names.pop(name, None)
        self.state_file.save_if_possible()
