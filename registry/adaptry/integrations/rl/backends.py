"""Backends that deploy a published policy version, and report which engines do not serve it yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Set

from adaptry.core.digest import Digest
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import Engine
from adaptry.registry.interface import Registry
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import WorkerInfo


class PolicyBackend(ABC):
    """A backend that deploys the versions of one policy."""

    @abstractmethod
    def model_name(self, version: VersionInfo) -> str:
        """The model name to request from engines."""

    @abstractmethod
    def deploy(self, version: VersionInfo) -> None:
        """Starts the deployment. Raises `CheckFailed`, `Unavailable`."""

    @abstractmethod
    def not_up_to_date(self, version: VersionInfo) -> tuple[str, ...]:
        """The engines that do not serve `version` yet, or may still answer from another version."""


class EngineBackend(PolicyBackend):
    """Loads versions into engines. Each version has its own name, so a sample records which version produced
    it.
    """

    def __init__(self, registry: Registry, engines: Sequence[Engine], cache: Cache) -> None:
        self._registry, self._engines, self._cache = registry, engines, cache

    def model_name(self, version: VersionInfo) -> str:
        return version.label

    def deploy(self, version: VersionInfo) -> None:
        """Unloads idle older versions first, because an engine may have few slots."""
        kept = self._cache.acquire(self._registry, version.revision_ref)
        for engine in self._engines:
            self._unload_idle(engine, version)
            if self.model_name(version) not in {each.name for each in engine.list_adapters()}:
                self._cache.hold(kept.digest, engine.address, self.model_name(version))
                engine.load(self.model_name(version), kept.path)

    def not_up_to_date(self, version: VersionInfo) -> tuple[str, ...]:
        return tuple(engine.client.url for engine in self._engines if self._unload_idle(engine, version))

    def _unload_idle(self, engine: Engine, version: VersionInfo) -> bool:
        """Unloads idle older versions; returns whether one is still in use."""
        busy = engine.names_in_use()
        older = [each for each in engine.list_adapters() if self._is_older(each.name, version)]
        idle = [each for each in older if each.name not in busy]
        for each in idle:
            engine.unload(each.name)
        self._release_unloaded(engine, {each.digest for each in idle if each.digest is not None})
        return any(each.name in busy for each in older)

    def _release_unloaded(self, engine: Engine, unloaded: Set[Digest]) -> None:
        """Lets the cache delete the files of versions that the engine no longer has under any name."""
        readable = engine.readable_digests(engine.list_adapters()) if unloaded else None
        if readable is None:  # nothing to do, or an engine that cannot list the files it may read again
            return
        for digest in unloaded - readable:
            self._cache.release_hold(digest, engine.address)
            self._cache.release(digest)

    def _is_older(self, name: str, version: VersionInfo) -> bool:
        """Whether a name is that of an older version that this publisher loaded, and not one of a resolver or
        a worker (`acme/policy@prod`)."""
        adapter, _, number = name.partition("@")
        return adapter == str(version.name) and number.isdigit() and name != self.model_name(version)


class WorkerBackend(PolicyBackend):
    """Relies on workers that follow the alias `served_as` and report the versions that they serve to the
    registry.
    """

    def __init__(self, registry: Registry, served_as: str) -> None:
        self._registry, self._served_as = registry, served_as

    def model_name(self, version: VersionInfo) -> str:
        return self._served_as

    def deploy(self, version: VersionInfo) -> None:
        """Does nothing: the alias has moved, and workers follow it."""

    def not_up_to_date(self, version: VersionInfo) -> tuple[str, ...]:
        return tuple(
            worker.worker
            for worker in self._followers()
            if not worker.is_lost and self._is_behind(worker, version)
        )

    def _is_behind(self, worker: WorkerInfo, version: VersionInfo) -> bool:
        ours = [each for each in worker.residents if each.served_as == self._served_as and each.may_be_served]
        return [(each.digest, each.condition) for each in ours] != [(version.digest, "serving")]

    def _followers(self) -> Iterator[WorkerInfo]:
        return filter(self._follows, iter_items(lambda cursor: self._registry.workers.list(cursor, 200)))

    def _follows(self, worker: WorkerInfo) -> bool:
        """Whether a worker follows the alias: it had a version under that name, or reports a problem."""
        names = {each.served_as for each in worker.residents} | {each.served_as for each in worker.problems}
        return self._served_as in names
