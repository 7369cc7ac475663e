"""A worker whose engine takes longer to load an adapter than a report is valid: the registry still has its
report, and the worker learns about recalls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from adaptry.core.refs import AdapterName

from .conftest import PROD, Scene, settle
from .fakes import FakeVllm

OTHERS = tuple(map(AdapterName.parse, ("acme/facts", "acme/maths", "acme/news")))
LEASE = 2


class SlowVllm(FakeVllm):
    """Calls `on_load` before it loads an adapter."""

    on_load: Callable[[str], None] | None = None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/load_lora_adapter" and self.on_load:
            self.on_load(body["lora_name"])
        return super().post(path, body)


def wait_for_report(scene: Scene) -> None:
    """Waits until the registry has a newer report of the worker."""
    first, until = scene.registry.workers.get("gpu-1").reported_at, time.monotonic() + 60
    while scene.registry.workers.get("gpu-1").reported_at == first:
        assert time.monotonic() < until, "no report arrived while the engine loaded an adapter"


def test_a_worker_keeps_reporting_while_its_engine_loads_an_adapter(scene: Scene) -> None:
    engine = SlowVllm()
    scene.alias(scene.publish(1))
    seen: list[list[tuple[int, str]]] = []

    def load_slowly(_: str) -> None:
        wait_for_report(scene)
        seen.append([(one.number, one.condition) for one in scene.registry.workers.get("gpu-1").residents])

    engine.on_load = load_slowly
    try:
        settle(scene.worker(engine, lease=LEASE))
        assert seen == [[(1, "loading")]]
        assert scene.serves(engine) == 1
    finally:
        engine.stop()


def test_a_recall_during_a_slow_load_comes_before_the_next_load(scene: Scene) -> None:
    """Otherwise a worker that loads hundreds of adapters would keep a withdrawn one until the end."""
    engine = SlowVllm()
    withdrawn = scene.publish(1)
    scene.alias(withdrawn)
    worker = scene.worker(engine, lease=LEASE)
    try:
        settle(worker)
        for seed, name in enumerate(OTHERS, start=2):
            scene.alias(scene.publish(seed, name))
        loaded: list[str] = []

        def load_slowly(name: str) -> None:
            if not loaded:
                scene.stand(withdrawn)
                wait_for_report(scene)
            loaded.append(name)

        engine.on_load = load_slowly
        assert not worker.reconcile(0.0)
        assert loaded == ["acme/facts@prod"]
        settle(worker)
        assert PROD not in engine.names()
        assert set(engine.names()) == {f"{name}@prod" for name in OTHERS}
    finally:
        engine.stop()
