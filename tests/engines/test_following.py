"""A worker keeps an engine up to date with aliases, recalls and rollouts, whichever process is killed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.rollouts import RolloutPlan

from .conftest import PROD, TONE, Scene, settle
from .fakes import FIXED, FakeVllm


def test_an_engine_serves_the_aliased_version_and_follows_moves(scene: Scene, kind: str) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine(kind)
    worker = scene.worker(engine)
    settle(worker)
    assert scene.serves(engine) == 1
    scene.alias(second)
    settle(worker)
    assert scene.serves(engine) == 2
    assert list(engine.names()) == [PROD]
    assert second.digest.hex in engine.names()[PROD]
    (resident,) = scene.registry.workers.get("gpu-1").residents
    assert (resident.number, resident.condition, resident.served_as) == (2, "serving", PROD)
    (before,) = scene.registry.workers.residents(Ref.parse("acme/tone@1"))
    assert before.condition == "unloaded"


def test_a_name_that_is_no_longer_an_alias_is_unloaded(scene: Scene, kind: str) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine(kind)
    worker = scene.worker(engine)
    settle(worker)
    scene.registry.aliases.remove(TONE, "prod", was=1)
    settle(worker)
    assert engine.names() == {}
    assert scene.registry.workers.get("gpu-1").residents == ()


def test_a_recalled_version_is_removed_and_the_recall_is_proved(scene: Scene, kind: str) -> None:
    first = scene.publish(1)
    scene.alias(first)
    engine = scene.engine(kind)
    worker = scene.worker(engine)
    settle(worker)
    path = Path(engine.names()[PROD])
    scene.stand(first)
    settle(worker)
    assert engine.names() == {}
    assert scene.serves(engine) is None
    (resident,) = scene.registry.workers.residents(Ref.parse("acme/tone@1"))
    assert resident.dropped_at is not None
    assert not path.exists()
    settle(scene.worker(engine))
    assert scene.serves(engine) is None


def test_a_restored_version_is_served_again(scene: Scene) -> None:
    first = scene.publish(1)
    scene.alias(first)
    engine = scene.engine()
    worker = scene.worker(engine)
    settle(worker)
    scene.stand(first)
    settle(worker)
    scene.stand(first, "active")
    settle(worker)
    assert scene.serves(engine) == 1


def test_a_recall_reaches_an_older_version_that_is_only_kept_in_the_cache(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine("sglang")
    worker = scene.worker(engine)
    settle(worker)
    path = Path(engine.names()[PROD])
    scene.alias(second)
    settle(worker)
    scene.stand(first)
    settle(worker)
    (resident,) = scene.registry.workers.residents(Ref.parse("acme/tone@1"))
    assert resident.dropped_at is not None
    assert not path.exists()


def test_adapters_loaded_by_others_are_unloaded_only_if_recalled(scene: Scene) -> None:
    first = scene.publish(1)
    scene.alias(first)
    other = scene.publish(7, AdapterName.parse("acme/voice"))
    engine = scene.engine()
    worker = scene.worker(engine)
    settle(worker)
    kept = worker._deps.cache.acquire(scene.registry, "acme/voice@1")
    engine.post("/v1/load_lora_adapter", {"lora_name": "acme/voice@1", "lora_path": str(kept.path)})
    engine.post(
        "/v1/load_lora_adapter", {"lora_name": "mine", "lora_path": str(scene.folder / "lora-tone-1")}
    )
    settle(worker)
    assert set(engine.names()) == {PROD, "acme/voice@1", "mine"}
    assert [one.worker for one in scene.registry.workers.residents(Ref.parse("acme/voice@1"))] == ["gpu-1"]
    scene.stand(other)
    settle(worker)
    settle(worker)
    assert set(engine.names()) == {PROD, "mine"}


def test_an_engine_that_restarts_without_adapters_gets_them_again(scene: Scene, kind: str) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine(kind)
    worker = scene.worker(engine)
    settle(worker)
    engine.stop()
    assert not worker.reconcile(0.0)
    assert not scene.registry.workers.get("gpu-1").is_answering
    engine.start()
    settle(worker)
    assert scene.serves(engine) == 1
    assert scene.registry.workers.get("gpu-1").is_answering


def test_a_restarted_worker_continues_where_it_was(scene: Scene, kind: str) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine(kind)
    settle(scene.worker(engine))
    scene.alias(second)
    settle(scene.worker(engine))
    assert scene.serves(engine) == 2


def test_a_version_that_the_engine_refuses_replaces_no_other(scene: Scene, kind: str) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine(kind)
    worker = scene.worker(engine)
    settle(worker)
    engine.refuses = {weights for weights, one in scene.weights.items() if one.number == 2}
    scene.alias(second)
    assert not worker.reconcile(0.0)
    worker.reconcile(0.0)
    assert scene.serves(engine) == 1
    (problem,) = scene.registry.workers.get("gpu-1").problems
    assert (problem.served_as, "max_lora_rank" in problem.reason) == (PROD, True)


def test_a_version_for_another_base_is_never_loaded(scene: Scene) -> None:
    scene.alias(scene.publish(1, base_name="org/other"))
    engine = scene.engine()
    worker = scene.worker(engine)
    worker.reconcile(0.0)
    assert engine.names() == {}
    assert "not registered by content" in scene.registry.workers.get("gpu-1").problems[0].reason


def test_more_adapters_than_slots_are_never_loaded(scene: Scene, kind: str) -> None:
    for seed, name in enumerate(("a", "b", "c"), start=1):
        scene.alias(scene.publish(seed, AdapterName.parse(f"acme/{name}")))
    engine = scene.engine(kind)
    worker = scene.worker(engine, slots=2, preload=("acme/c@prod",))
    settle(worker)
    assert sorted(engine.names()) == ["acme/a@prod", "acme/c@prod"]
    assert engine.most == 2
    (problem,) = scene.registry.workers.get("gpu-1").problems
    assert problem.served_as == "acme/b@prod"
    scene.registry.aliases.remove(AdapterName.parse("acme/a"), "prod", was=1)
    settle(worker)
    assert sorted(engine.names()) == ["acme/b@prod", "acme/c@prod"]
    assert engine.most == 2


def test_a_rollout_that_fails_on_one_worker_is_stopped_and_reverted(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engines = [scene.engine() for _ in range(3)]
    workers = [scene.worker(engine, f"gpu-{number}") for number, engine in enumerate(engines)]
    for worker in workers:
        settle(worker)
    scene.registry.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(30, 100)))
    for _ in range(3):
        for worker in workers:
            settle(worker)
    numbers = [scene.serves(engine) for engine in engines]
    assert sorted(numbers) == [1, 1, 2]
    canary = numbers.index(2)
    engines[canary].fails = {weights for weights, one in scene.weights.items() if one.number == 2}
    for _ in range(5):
        scene.serves(engines[canary])
    for _ in range(3):
        for worker in workers:
            worker.reconcile(0.0)
    (rollout,) = scene.registry.rollouts.list(TONE)
    assert rollout.stage == "stopped"
    assert rollout.reason is not None
    assert f"gpu-{canary} reports" in rollout.reason
    assert [scene.serves(engine) for engine in engines] == [1, 1, 1]
    assert scene.registry.aliases.list(TONE)[0].number == 1


def test_a_rollout_that_works_reaches_everyone_and_moves_the_alias(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engines = [scene.engine() for _ in range(2)]
    workers = [scene.worker(engine, f"gpu-{number}") for number, engine in enumerate(engines)]
    for worker in workers:
        settle(worker)
    scene.registry.rollouts.start(TONE, "prod", second.digest, RolloutPlan(steps=(50, 100), interval=1))
    turns = 0
    while scene.registry.rollouts.list(TONE)[0].stage == "running":
        turns += 1
        assert turns < 2000
        for worker in workers:
            worker.reconcile(0.0)
    assert scene.registry.rollouts.list(TONE)[0].stage == "done"
    for worker in workers:
        settle(worker)
    assert [scene.serves(engine) for engine in engines] == [2, 2]


@pytest.mark.parametrize("kind", FIXED)
def test_an_engine_that_cannot_unload_is_restarted_for_a_recall(scene: Scene, kind: str) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine(kind)
    worker = scene.worker(engine)
    settle(worker)
    assert scene.serves(engine) == 1
    scene.alias(second)
    settle(worker)
    assert scene.serves(engine) == 2
    scene.stand(second)
    settle(worker)
    assert scene.serves(engine) is None
    assert not any(second.digest.hex in path for path in engine.names())
    (resident,) = scene.registry.workers.residents(Ref.parse("acme/tone@2"))
    assert resident.dropped_at is not None


def test_without_a_restart_command_no_drop_is_reported(scene: Scene) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine("lorax")
    worker = scene.worker(engine, restarts=False)
    settle(worker)
    scene.stand(scene.registry.versions.get(Ref.parse(PROD)))
    for _ in range(3):
        assert not worker.reconcile(0.0)
    assert any("--restart" in line for line in scene.story)
    (resident,) = scene.registry.workers.residents(Ref.parse("acme/tone@1"))
    assert resident.dropped_at is None
    assert scene.caches["gpu-1"].has_files(resident.digest), "the engine may read them again"


@pytest.mark.parametrize("kind", ["lorax", "dynamo"])
def test_a_load_that_failed_is_not_listed_after_a_restart_of_the_worker(scene: Scene, kind: str) -> None:
    version = scene.publish(1)
    scene.alias(version)
    engine = scene.engine(kind)
    engine.refuses.update(scene.weights)
    worker = scene.worker(engine)
    assert not worker.reconcile(0.0)

    scene.worker(engine).reconcile(0.0)

    assert engine.names() == {}
    (resident,) = scene.registry.workers.residents(Ref.parse("acme/tone@1"))
    assert resident.condition == "failed"
    engine.refuses.clear()
    settle(scene.worker(engine))
    assert version.digest.hex in next(iter(engine.names().values()))


def test_a_name_whose_version_was_recalled_before_loading_is_not_served(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine()
    worker = scene.worker(engine)
    settle(worker)
    scene.alias(second)
    scene.stand(second)
    settle(worker)
    assert scene.serves(engine) is None


def test_a_name_in_vllm_moves_once_running_requests_have_ended(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine("vllm")
    assert isinstance(engine, FakeVllm)
    worker = scene.worker(engine)
    settle(worker)
    number = engine.hold(PROD)
    scene.alias(second)
    turning = threading.Thread(target=settle, args=(worker,))
    turning.start()
    until = time.monotonic() + 60
    while PROD in engine.names():
        assert time.monotonic() < until
    for _ in range(20):
        assert scene.serves(engine) is None
    engine.let_go(number)
    turning.join(60)
    assert scene.serves(engine) == 2
    assert engine.ended is None


def test_the_files_of_a_recalled_version_stay_as_long_as_a_request_may_need_them(scene: Scene) -> None:
    first = scene.publish(1)
    scene.alias(first)
    engine = scene.engine("vllm")
    assert isinstance(engine, FakeVllm)
    worker = scene.worker(engine)
    settle(worker)
    path = Path(engine.names()[PROD])
    number = engine.hold(PROD)
    scene.stand(first)
    for _ in range(3):
        assert not worker.reconcile(0.0)
    assert engine.names() == {}
    assert path.is_dir()
    assert scene.registry.workers.residents(Ref.parse("acme/tone@1"))[0].dropped_at is None
    engine.let_go(number)
    settle(worker)
    assert not path.exists()
    assert scene.registry.workers.residents(Ref.parse("acme/tone@1"))[0].dropped_at is not None


def test_dynamo_is_followed_by_the_interface_that_it_documents(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine("dynamo")
    settle(scene.worker(engine))
    scene.alias(second)
    worker = scene.worker(engine)
    settle(worker)
    ((name, path),) = engine.names().items()
    assert (name, second.digest.hex in path) == (PROD, True)
    scene.stand(second)
    settle(worker)
    assert engine.names() == {}
    (resident,) = scene.registry.workers.residents(Ref.of_revision(TONE, second.digest))
    assert resident.dropped_at is not None
