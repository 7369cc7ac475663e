"""Carrying out the steps of a plan on an engine: fetch, check, load, try out; and what takes a name over proves itself first.

Where an engine cannot replace what a name stands for, the new version is loaded under its digest's name beside the old one, if
a slot is free, and tried out there. So a version that the engine refuses takes nobody's place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adaptry.core.errors import AdaptryError, CheckFailed, Unavailable
from adaptry.core.refs import ByDigest, Ref
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.compatibility import EngineProfile, require_base_match, require_compatible
from adaptry.integrations.serving.engines import Engine
from adaptry.integrations.serving.follow.plan import FollowAction, LoadAction, SwapAction, UnloadAction
from adaptry.integrations.serving.follow.state_file import StateFile
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo


def version_label(version: VersionInfo) -> str:
    return f"{version.name}@{version.number}"


def trial_name(version: VersionInfo) -> str:
    """The name under which a version is tried out."""
    return str(Ref(version.name, ByDigest(version.digest.hex[:12])))


@dataclass(frozen=True, slots=True)
class PlanExecutor:
    """What a step needs. `serving` is None where the registry is away: then only what was served before is loaded."""

    registry: Registry
    engine: Engine
    cache: Cache
    state_file: StateFile
    engine_profile: EngineProfile | None
    log: Callable[[str], None]

    def apply(self, step: FollowAction, has_room: bool) -> None:
        """Raises `Unavailable` where engine or registry does not answer, and else what the version was refused for."""
        match step:
            case UnloadAction(had):
                self._unload(had.served_as)
                self.log(f"unloaded {had.served_as}")
            case LoadAction(wanted):
                self._load(wanted.served_as, wanted.version, self._fetch_compatible(wanted.version))
                self.log(f"loaded {wanted.served_as}: {version_label(wanted.version)}")
            case SwapAction(wanted, _):
                self._swap(wanted.served_as, wanted.version, has_room)
                self.log(f"{wanted.served_as} is {version_label(wanted.version)} now")

    def _fetch_compatible(self, version: VersionInfo) -> Path:
        """The verified files, leased, of a version that fits this engine."""
        if self.engine_profile is None:
            kept = self.cache.acquire_local(version.digest)
            if kept is None:
                raise Unavailable(
                    f"the files of {version_label(version)} are not here, and the registry is away"
                )
            return kept.path
        require_base_match(self.registry, version, self.engine_profile.base)
        kept = self.cache.acquire(self.registry, Ref(version.name, ByDigest(version.digest.hex)))
        require_compatible(kept, self.engine_profile)
        return kept.path

    def _load(self, name: str, version: VersionInfo, path: Path) -> None:
        self._record_loaded(name, version, path)
        self.engine.load(name, path)
        try:
            self.engine.require_working(name)
        except CheckFailed:
            self._unload(name)
            raise

    def _record_loaded(self, name: str, version: VersionInfo, path: Path) -> None:
        """On the disk, or as if nothing had been."""
        now = self.state_file.state
        ours, names = dict(now.ours), dict(now.names)
        now.ours[name], now.names[name] = version, str(path)
        try:
            self.state_file.save()
        except Unavailable:
            now.ours, now.names = ours, names
            raise

    def _swap(self, name: str, version: VersionInfo, has_room: bool) -> None:
        path = self._fetch_compatible(version)
        before = self.state_file.state.ours.get(name)
        tried = trial_name(version) if has_room and not self.engine.can_replace else None
        if tried:
            self._load(tried, version, path)
        try:
            if not self.engine.can_replace:
                self._unload(name)
            self._load(name, version, path)
        except CheckFailed:
            self._roll_back(name, before)
            raise
        finally:
            if tried:
                self._unload(tried)

    def _roll_back(self, name: str, before: VersionInfo | None) -> None:
        """What was served until now goes on being served, where it can."""
        if before is None:
            return
        with contextlib.suppress(AdaptryError):
            if kept := self.cache.acquire_local(before.digest):
                self._load(name, before, kept.path)

    def _unload(self, name: str) -> None:
        self.engine.unload(name)
        self.state_file.state.ours.pop(name, None)
        self.state_file.state.names.pop(name, None)
        self.state_file.save_if_possible()
