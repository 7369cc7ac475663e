"""Carrying out the steps of a plan on an engine: fetch, check, load, try out; and what takes a name over proves itself first.

Where an engine cannot replace what a name stands for, the new version is loaded under its digest's name beside the old one, if
a slot is free, and tried out there. So a version that the engine refuses takes nobody's place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adaptry.core.errors import AdaptryError, Refused, Unavailable
from adaptry.core.refs import ByDigest, Ref
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.compatibility import Serving, require_base, require_served_as_trained
from adaptry.integrations.serving.engines import Engine
from adaptry.integrations.serving.follow.plan import Load, Step, Swap, Unload
from adaptry.integrations.serving.follow.state_file import Memory
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo


def label_of(version: VersionInfo) -> str:
    return f"{version.name}@{version.number}"


def digest_name(version: VersionInfo) -> str:
    """The name under which a version is tried out."""
    return str(Ref(version.name, ByDigest(version.digest.hex[:12])))


@dataclass(frozen=True, slots=True)
class Acting:
    """What a step needs. `serving` is None where the registry is away: then only what was served before is loaded."""

    registry: Registry
    engine: Engine
    cache: Cache
    memory: Memory
    serving: Serving | None
    tell: Callable[[str], None]

    def take(self, step: Step, has_room: bool) -> None:
        """Raises `Unavailable` where engine or registry does not answer, and else what the version was refused for."""
        match step:
            case Unload(had):
                self._unload(had.served_as)
                self.tell(f"unloaded {had.served_as}")
            case Load(wanted):
                self._load(wanted.served_as, wanted.version, self._files(wanted.version))
                self.tell(f"loaded {wanted.served_as}: {label_of(wanted.version)}")
            case Swap(wanted, _):
                self._swap(wanted.served_as, wanted.version, has_room)
                self.tell(f"{wanted.served_as} is {label_of(wanted.version)} now")

    def _files(self, version: VersionInfo) -> Path:
        """The verified files, leased, of a version that fits this engine."""
        if self.serving is None:
            kept = self.cache.kept(version.digest)
            if kept is None:
                raise Unavailable(f"the files of {label_of(version)} are not here, and the registry is away")
            return kept.path
        require_base(self.registry, version, self.serving.base)
        kept = self.cache.path_of(self.registry, Ref(version.name, ByDigest(version.digest.hex)))
        require_served_as_trained(kept, self.serving)
        return kept.path

    def _load(self, name: str, version: VersionInfo, path: Path) -> None:
        self._remember(name, version, path)
        self.engine.load(name, path)
        try:
            self.engine.try_out(name)
        except Refused:
            self._unload(name)
            raise

    def _remember(self, name: str, version: VersionInfo, path: Path) -> None:
        """On the disk, or as if nothing had been."""
        now = self.memory.now
        ours, names = dict(now.ours), dict(now.names)
        now.ours[name], now.names[name] = version, str(path)
        try:
            self.memory.save()
        except Unavailable:
            now.ours, now.names = ours, names
            raise

    def _swap(self, name: str, version: VersionInfo, has_room: bool) -> None:
        path = self._files(version)
        before = self.memory.now.ours.get(name)
        tried = digest_name(version) if has_room and not self.engine.swaps else None
        if tried:
            self._load(tried, version, path)
        try:
            if not self.engine.swaps:
                self._unload(name)
            self._load(name, version, path)
        except Refused:
            self._put_back(name, before)
            raise
        finally:
            if tried:
                self._unload(tried)

    def _put_back(self, name: str, before: VersionInfo | None) -> None:
        """What was served until now goes on being served, where it can."""
        if before is None:
            return
        with contextlib.suppress(AdaptryError):
            if kept := self.cache.kept(before.digest):
                self._load(name, before, kept.path)

    def _unload(self, name: str) -> None:
        self.engine.unload(name)
        self.memory.now.ours.pop(name, None)
        self.memory.now.names.pop(name, None)
        self.memory.note()
