"""Errors that affect one adapter of a worker: they are reported, do not prevent others from being served, and
end with their cause.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from adaptry.core.errors import CheckFailed, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving.follow import loop
from adaptry.integrations.serving.worker.state_file import StateFile
from adaptry.registry.workers import WorkerInfo

from .conftest import PROD, TONE, Scene, settle
from .fakes import FakeVllm
from .test_commands import follow, run

__all__ = ["follow", "run"]
Follow = Callable[..., Result]


def problems(worker: WorkerInfo) -> dict[str, str]:
    return {problem.served_as: problem.reason for problem in worker.problems}


def test_a_version_too_large_for_the_cache_does_not_block_others(scene: Scene) -> None:
    large, small = scene.publish(1, AdapterName.parse("acme/a"), rank=8), scene.publish(2)
    scene.alias(large)
    scene.alias(small)
    engine = scene.engine()
    worker = scene.worker(engine, cache_size=small.size + 10)

    for _ in range(2):
        worker.reconcile(0.0)

    assert scene.serves(engine) == 1
    assert list(engine.names()) == [PROD]
    assert "ADAPTRY_CACHE_SIZE" in problems(scene.registry.workers.get("gpu-1"))["acme/a@prod"]


def test_a_version_that_cannot_be_fetched_does_not_block_others(scene: Scene) -> None:
    lost, there = scene.publish(1, AdapterName.parse("acme/a")), scene.publish(2)
    scene.alias(lost)
    scene.alias(there)
    weights = next(digest for digest, version in scene.weights.items() if version.digest == lost.digest)
    (blob,) = [path for path in (scene.folder / "data").rglob(f"*{weights}*") if path.is_file()]
    blob.unlink()
    engine = scene.engine()
    worker = scene.worker(engine)

    for _ in range(2):
        worker.reconcile(0.0)

    assert scene.serves(engine) == 1
    assert list(engine.names()) == [PROD]
    assert "acme/a@prod" in problems(scene.registry.workers.get("gpu-1"))


def test_endless_requests_do_not_block_other_names(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptry.integrations.serving.engines import vllm

    monkeypatch.setattr(vllm, "_TIMEOUT", 0.1)
    held, other = AdapterName.parse("acme/a"), TONE
    first, second = scene.publish(1, held), scene.publish(2, held)
    scene.alias(first)
    engine = scene.engine()
    assert isinstance(engine, FakeVllm)
    worker = scene.worker(engine)
    settle(worker)
    number = engine.hold("acme/a@prod")
    scene.alias(second)
    scene.alias(scene.publish(3, other))

    worker.reconcile(0.0)

    assert scene.serves(engine) == 1
    assert "still running" in problems(scene.registry.workers.get("gpu-1"))["acme/a@prod"]
    engine.let_go(number)
    settle(worker)
    assert scene.serves(engine, "acme/a@prod") == 2
    assert problems(scene.registry.workers.get("gpu-1")) == {}


def test_recalled_versions_are_removed_even_if_the_disk_is_full(scene: Scene, kind: str) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine(kind)
    worker = scene.worker(engine)
    settle(worker)
    state = scene.memories["gpu-1"].path
    state.unlink()
    (state / "in the way").mkdir(parents=True)
    scene.alias(second)
    worker.reconcile(0.0)
    assert scene.serves(engine) == 1
    assert str(state) in problems(scene.registry.workers.get("gpu-1"))[PROD]

    scene.stand(first)
    for _ in range(3):
        worker.reconcile(0.0)

    assert scene.serves(engine) is None
    (resident,) = scene.registry.workers.residents(Ref.parse("acme/tone@1"))
    assert resident.dropped_at is not None
    (state / "in the way").rmdir()
    state.rmdir()
    settle(worker)
    assert scene.serves(engine) == 2


def test_an_engine_that_starts_is_waited_for(scene: Scene, kind: str) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine(kind)
    engine.is_starting = True
    worker = scene.worker(engine)

    assert not worker.reconcile(0.0)
    engine.is_starting = False
    settle(worker)

    assert scene.serves(engine) == 1


def test_once_fails_if_the_engine_does_not_answer(scene: Scene, follow: Follow) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    engine.stop()

    found = follow(engine, code=6)

    assert f"the engine at {engine.url} does not answer" in found.stderr


def test_once_fails_if_the_registry_does_not_answer(scene: Scene, follow: Follow) -> None:
    engine = scene.engine()

    found = follow(engine, "--registry", "http://127.0.0.1:9", code=6)

    assert "http://127.0.0.1:9" in found.stderr


def test_once_fails_if_a_version_is_not_served(scene: Scene, follow: Follow) -> None:
    scene.alias(scene.publish(1, rank=32))
    engine = scene.engine()

    found = follow(engine, "--runtime", "vllm,max_lora_rank=16", code=1)

    assert "not served as it should be: acme/tone@prod: acme/tone@1 on vllm" in found.stderr
    assert engine.names() == {}


def test_once_gives_up_if_the_state_never_settles(scene: Scene) -> None:
    scene.alias(scene.publish(1))
    worker = scene.worker(scene.engine("lorax"), restarts=False)
    settle(worker)
    scene.stand(scene.registry.versions.get(Ref.parse(PROD)))

    with pytest.raises(CheckFailed, match="does not have all desired adapters after 0 s"):
        loop.converge(worker, threading.Event(), timeout=0.0)

    assert any("--restart" in line for line in scene.story)


def test_an_engine_of_another_kind_than_declared_is_not_followed(scene: Scene, follow: Follow) -> None:
    engine = scene.engine("sglang")

    found = follow(engine, "--engine", "vllm", code=2)

    assert f"{engine.url} is sglang@0.5.23" in found.stderr
    assert "not vllm" in found.stderr


def test_an_address_without_an_engine_is_refused(scene: Scene, follow: Follow) -> None:
    engine = scene.engine()
    for url in (f"{engine.url}/v1", scene.server.url):
        assert "cannot list its models" in follow(engine, "--url", url, code=1).stderr
    assert "cannot list its adapters" in follow(engine, "--engine", "llamacpp", code=1).stderr


def test_an_engine_that_requires_a_key_gets_it(
    scene: Scene, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    engine.key = "sesame"

    assert "Unauthorized" in follow(engine, code=1).stderr
    monkeypatch.setenv("ADAPTRY_ENGINE_KEY", "sesame")
    follow(engine)

    assert list(engine.names()) == [PROD]


def test_a_vllm_without_runtime_loading_gets_the_setting_for_it(scene: Scene) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    assert isinstance(engine, FakeVllm)
    engine.is_updatable = False
    scene.worker(engine).reconcile(0.0)
    reason = problems(scene.registry.workers.get("gpu-1"))[PROD]
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in reason
    assert "--api-server-count 1" in reason


def test_a_state_that_cannot_be_written_leaves_no_half_file_behind(tmp_path: Path) -> None:
    state_file = StateFile(tmp_path / "state.json")
    state_file.state.names["acme/tone"] = "/adapters/tone"
    state_file.path.mkdir()
    with pytest.raises(Unavailable):
        state_file.save()
    assert list(tmp_path.iterdir()) == [state_file.path]


def test_aliases_beyond_the_limit_of_a_report_are_not_loaded(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = "adaptry.integrations.serving.follow"
    for place in (f"{follow}.reporter", "adaptry.integrations.serving.worker.status_report"):
        monkeypatch.setattr(f"{place}.MAX_RESIDENTS", 3)
    monkeypatch.setattr(f"{follow}.settings._MAX_LOADED", 2)
    for seed in range(1, 6):
        scene.alias(scene.publish(seed, AdapterName.parse(f"acme/tone-{seed}")))
    engine = scene.engine()
    worker = scene.worker(engine)
    for _ in range(6):
        worker.reconcile(0.0)
    report = scene.registry.workers.get("gpu-1")
    assert len(engine.names()) == 2
    assert {one.served_as for one in report.residents} == set(engine.names())
    assert len([one for one in report.problems if "no slot is free" in one.reason]) == 3


def test_an_engine_that_is_away_for_many_passes_is_logged_once(scene: Scene) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    worker = scene.worker(engine)
    settle(worker)
    scene.story.clear()
    engine.stop()
    for _ in range(3):
        worker.reconcile(0.0)
    engine.start()
    settle(worker)
    assert scene.story == [
        f"the engine at {engine.url} does not answer (Connection refused)",
        f"loaded {PROD}: acme/tone@1",
        f"the engine at {engine.url} answers again",
    ]


def test_a_problem_that_lasts_is_logged_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptry.integrations.serving.engines import vllm

    monkeypatch.setattr(vllm, "_TIMEOUT", 0.1)
    scene.alias(scene.publish(1))
    engine = scene.engine()
    assert isinstance(engine, FakeVllm)
    worker = scene.worker(engine)
    settle(worker)
    number = engine.hold(PROD)
    scene.alias(scene.publish(2))
    scene.story.clear()
    for _ in range(3):
        worker.reconcile(0.0)
    assert len([line for line in scene.story if "are still running" in line]) == 1
    engine.let_go(number)
    settle(worker)
    assert scene.serves(engine) == 2
