"""An engine behind the proxy: public names are routes, and versions are loaded under names with their digest.

A version with routes is listed under their public names only. A version without any route is listed under its
own name until its requests have ended and it is unloaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, InvalidRef
from adaptry.core.refs import ByDigest, Ref
from adaptry.integrations.serving.engines import (
    AdapterUsage,
    Engine,
    EngineAdapter,
    EngineResponse,
    RequestCounts,
)
from adaptry.integrations.serving.proxy.routes import RouteTable
from adaptry.integrations.serving.worker.adapter_traffic import AdapterTraffic

_DRAINING = 60.0
"""Seconds that running requests have to end before an engine is restarted."""


class ProxiedEngine(Engine):
    """`engine`, with separate public names (`routes`)."""

    can_replace = True
    can_alias = True

    def __init__(self, engine: Engine, names: Mapping[str, str]) -> None:
        """`names`: the public names that were served before a restart, with the paths of their versions."""
        super().__init__(engine.client)
        self.name, self.is_unload_final = engine.name, engine.is_unload_final
        self.can_stack = engine.can_stack
        self.routes, self.traffic = RouteTable(), AdapterTraffic()
        self._engine = engine
        self._restorable = dict(names)

    def list_adapters(self) -> tuple[EngineAdapter, ...]:
        loaded = {one.name: one for one in self._engine.list_adapters()}
        self._restore_routes(loaded)
        targets = self.routes.targets()
        found = [EngineAdapter(name, loaded[to].path) for name, to in targets.items() if to in loaded]
        found += [one for name, one in loaded.items() if name not in targets.values()]
        return tuple(sorted(found, key=lambda one: one.name))

    def is_prepared(self, path: Path) -> bool:
        return self._engine.is_prepared(path)

    def load(self, name: str, path: Path) -> None:
        wanted = EngineAdapter(name, str(path))
        if not any(_is_same(wanted, one) for one in self._engine.list_adapters()):
            with self._restarting():
                self._engine.load(name, path)
        self.routes.admit(name)

    def alias(self, name: str, target: str) -> None:
        self.routes.point(name, target)
        if name != target and any(
            one.name == name for one in self._engine.list_adapters()
        ):  # loaded before there was a proxy
            self._engine.unload(name)

    def suspend(self, name: str) -> None:
        self.routes.suspend(name)

    def end_suspensions(self, wanted: Collection[str]) -> None:
        self.routes.end_suspensions(wanted)

    def unload(self, name: str) -> None:
        """Unloads the adapter. Raises `Conflict` while requests use the adapter, or other public names are
        routed to it.
        """
        targets = self.routes.targets()
        if name in targets:
            self.routes.remove(name)
        elif name in targets.values():
            raise Conflict(f"{name} stays loaded, because public names are routed to it")
        elif self.routes.retire(name):
            self._engine.unload(name)
        else:
            raise Conflict(f"requests still use {name}; it is unloaded when they have ended")

    def send_test_request(self, name: str) -> EngineResponse:
        return self._engine.send_test_request(self.routes.targets().get(name, name))

    def restart(self) -> None:
        with self._restarting():
            self._engine.restart()

    def deselect_adapters(self) -> None:
        self._engine.deselect_adapters()

    def names_in_use(self) -> frozenset[str]:
        busy = self.routes.in_use() | self._engine.names_in_use()
        return busy | {name for name, target in self.routes.targets().items() if target in busy}

    def require_loaded(self, name: str, digest: Digest) -> None:
        self._engine.require_loaded(name, digest)

    def started_at(self) -> float | None:
        return self._engine.started_at()

    def request_counts(self) -> RequestCounts | None:
        return self._engine.request_counts()

    def usage(self) -> Mapping[str, AdapterUsage]:
        by_target = self.traffic.usage()
        targets = self.routes.targets()
        return {**by_target, **{name: by_target[to] for name, to in targets.items() if to in by_target}}

    def readable_digests(self, loaded: Sequence[EngineAdapter]) -> frozenset[Digest] | None:
        return self._engine.readable_digests(loaded)

    def select_adapter(self, body: Mapping[str, object], name: str) -> dict[str, object]:
        return self._engine.select_adapter(body, name)

    def select_stack(
        self, body: Mapping[str, object], parts: Sequence[tuple[str, float]]
    ) -> dict[str, object]:
        return self._engine.select_stack(body, parts)

    def _restarting(self) -> AbstractContextManager[None]:
        """Makes requests wait while the block runs, because the engine may restart."""
        return self.routes.paused(_DRAINING) if self._engine.loads_by_restart else nullcontext()

    def _restore_routes(self, loaded: dict[str, EngineAdapter]) -> None:
        """After a restart of the worker, routes public names to the same versions as before."""
        names, self._restorable = self._restorable, {}
        for name, path in names.items():
            wanted = EngineAdapter(name, path)
            target = _digest_name(wanted)
            if target and target != name and target in loaded and _is_version(wanted, loaded[target]):
                self.routes.point(name, target)
                if name in loaded:  # under the public name too
                    self._engine.unload(name)
                    del loaded[name]


def _is_same(wanted: EngineAdapter, one: EngineAdapter) -> bool:
    return wanted.name == one.name and _is_version(wanted, one)


def _is_version(wanted: EngineAdapter, one: EngineAdapter) -> bool:
    """Whether an adapter was loaded from the path, or from a file that was converted from it."""
    return wanted.path == one.path or (wanted.digest is not None and wanted.digest == one.digest)


def _digest_name(adapter: EngineAdapter) -> str | None:
    """The name under which the version of a public name is loaded; None if the name is not a ref."""
    try:
        name = Ref.parse(adapter.name).name
    except InvalidRef:
        return None
    digest = adapter.digest
    return str(Ref(name, ByDigest(digest.hex[:12]))) if digest else None
