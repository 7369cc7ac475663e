"""Files that a worker gave its engine stay in the cache after the worker has ended, until the engine no
longer needs them.
"""

from __future__ import annotations

import pytest

from adaptry.core.refs import Ref
from adaptry.integrations.serving.cache.cache import Cache

from .conftest import PROD, Scene, settle


def cleaned(scene: Scene, worker: str = "gpu-1") -> Cache:
    """The worker's cache after another process removed everything that may be removed."""
    cache = Cache(scene.folder / "workers" / worker / "cache")
    cache.shrink(0)
    return cache


@pytest.mark.parametrize("kind", ["vllm", "mistralrs", "llamacpp"])
def test_a_version_stays_until_the_engine_was_seen_without_it(scene: Scene, kind: str) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine(kind)
    token = scene.token("gpu-1")
    settle(scene.worker(engine, token=token))
    scene.caches["gpu-1"].close()
    assert cleaned(scene).has_files(first.digest)
    assert scene.serves(engine) == 1

    scene.alias(second)
    settle(scene.worker(engine, token=token))
    scene.caches["gpu-1"].close()
    cache = cleaned(scene)
    assert not cache.has_files(first.digest)
    assert cache.has_files(second.digest)
    assert scene.serves(engine) == 2


def test_an_engine_that_restarted_without_adapters_holds_nothing(scene: Scene) -> None:
    version = scene.publish(1)
    scene.alias(version)
    engine = scene.engine("vllm")
    settle(worker := scene.worker(engine))
    engine.stop()
    assert not worker.reconcile(0.0)
    scene.caches["gpu-1"].close()
    assert cleaned(scene).has_files(version.digest), "an engine that does not answer may be starting"

    engine.start()
    scene.registry.aliases.remove(version.name, "prod", 1)
    settle(worker)
    assert not cleaned(scene).has_files(version.digest)


def test_a_recalled_version_stays_while_another_engine_may_read_it(scene: Scene) -> None:
    """Two engines share a cache; the second one's worker has ended."""
    version = scene.publish(1)
    scene.alias(version)
    engine, other = scene.engine("vllm"), scene.engine("vllm")
    settle(worker := scene.worker(engine))
    token = scene.token("gpu-2")
    settle(scene.worker(other, "gpu-2", token=token, cache_of="gpu-1"))
    scene.caches["gpu-2"].close()
    scene.stand(version)
    for _ in range(4):
        worker.reconcile(0.0)
    assert list(engine.names()) == [] and list(other.names()) == [PROD]
    assert cleaned(scene).has_files(version.digest)
    assert all(one.dropped_at is None for one in scene.registry.workers.residents(Ref.parse("acme/tone@1")))

    settle(scene.worker(other, "gpu-2", token=token, cache_of="gpu-1"))
    settle(worker)
    assert not cleaned(scene).has_files(version.digest)
