"""A version whose load the engine never answers: other adapters do not wait for it, it is retried at growing
intervals, and the registry has the reason and the time of the next attempt.
"""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving.follow.reconciler import Reconciler
from adaptry.integrations.serving.worker.backoff import Backoff
from adaptry.registry.records import VersionInfo
from adaptry.registry.rollouts import RolloutPlan
from adaptry.registry.workers import WorkerProblem

from .conftest import PROD, TONE, Scene, settle
from .fakes import Answer, FakeVllm

TIMEOUT = 1.0
LATER = AdapterName.parse("acme/zebra")
NEXT_ATTEMPT = re.compile(r"failed attempts: (\d), next attempt: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$")


class HangingVllm(FakeVllm):
    """Does not answer loads of the versions in `hangs_for`, nor requests to those in `hangs_with`, until
    `finish` is set."""

    def clear(self) -> None:
        super().clear()
        self.hangs_for: set[str] = set()
        self.hangs_with: set[str] = set()
        self.finish = threading.Event()
        self.has_loaded = threading.Event()
        self.attempts: list[str] = []
        self.loading: dict[str, str] = {}
        self.weights: dict[str, str] = {}

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        if path == "/v1/load_lora_adapter":
            self.attempts.append(body["lora_name"])
            self.loading[body["lora_name"]] = body["lora_path"]
            self.weights[body["lora_path"]] = super().read(body["lora_path"])
            self._wait_if(body["lora_path"], self.hangs_for)
        if path == "/v1/unload_lora_adapter":  # it has a lock for each name
            self._wait_if(self.loading.get(body["lora_name"], ""), self.hangs_for)
        if path == "/v1/completions" and body["model"] in self.names():
            self._wait_if(self.names()[body["model"]], self.hangs_with)
        answer = super().post(path, body)
        if path == "/v1/load_lora_adapter":
            self.loading.pop(body["lora_name"])
            self.has_loaded.set()
        return answer

    def read(self, path: str) -> str:
        """The weights that the engine read before it hung; the files may be gone."""
        return self.weights.get(path) or super().read(path)

    def _wait_if(self, folder: str, digests: set[str]) -> None:
        if any(digest in folder for digest in digests):
            self._lock.release()  # it answers other requests meanwhile
            try:
                assert self.finish.wait(60)
            finally:
                self._lock.acquire()


@pytest.fixture
def engine(scene: Scene) -> HangingVllm:
    made = HangingVllm()
    scene._stack.callback(made.stop)
    scene._stack.callback(made.finish.set)
    return made


def problem(scene: Scene) -> str:
    found = {one.served_as: one.reason for one in scene.registry.workers.get("gpu-1").problems}
    return found[PROD]


def retry_now(worker: Reconciler) -> None:
    """Tries again as if the pause before the next attempt had passed."""
    worker._backoff._clock = lambda: float("inf")


def hang(engine: HangingVllm, version: VersionInfo) -> None:
    engine.hangs_for.add(version.digest.hex)


def test_a_load_without_an_answer_is_not_repeated_in_the_next_pass_and_others_go_on(
    scene: Scene, engine: HangingVllm
) -> None:
    stuck = scene.publish(1)
    hang(engine, stuck)
    scene.alias(stuck)
    scene.alias(scene.publish(2, LATER))
    worker = scene.worker(engine, timeout=TIMEOUT)
    assert not worker.reconcile(0.0)
    settle(worker)
    assert list(engine.names()) == [f"{LATER}@prod"]
    assert engine.attempts.count("acme/tone@prod") == 1
    assert "did not answer POST /v1/load_lora_adapter within 1 s" in problem(scene)
    assert NEXT_ATTEMPT.search(problem(scene))
    (failed,) = [one for one in scene.registry.workers.get("gpu-1").residents if one.name == TONE]
    assert failed.condition == "failed"
    assert any(NEXT_ATTEMPT.search(line) for line in scene.story)


def test_a_version_that_hung_before_is_tried_after_all_others(scene: Scene, engine: HangingVllm) -> None:
    stuck = scene.publish(1)
    hang(engine, stuck)
    scene.alias(stuck)
    worker = scene.worker(engine, timeout=TIMEOUT)
    worker.reconcile(0.0)
    scene.alias(scene.publish(2, LATER))
    retry_now(worker)
    engine.attempts.clear()
    worker.reconcile(0.0)
    assert engine.attempts[0] == f"{LATER}@prod"
    assert engine.attempts[-1] == PROD
    assert list(engine.names()) == [f"{LATER}@prod"]


def test_versions_that_hang_delay_other_new_ones_by_the_engines_whole_time_only_once(
    scene: Scene, engine: HangingVllm
) -> None:
    """The engine gets less time for each further load until it answers one."""
    names = [AdapterName.parse(f"acme/{name}") for name in ("first", "second", "third")]
    for seed, name in enumerate(names):
        version = scene.publish(seed, name)
        hang(engine, version)
        scene.alias(version)
    scene.alias(scene.publish(9, LATER))
    worker = scene.worker(engine, timeout=3.0)
    now = 0.0
    worker._backoff._clock = lambda: now
    settle(worker)
    assert list(engine.names()) == [f"{LATER}@prod"]
    first, second, third = map(time_given, scene.registry.workers.get("gpu-1").problems)
    assert (first, second < 3.0, third < 3.0) == (3.0, True, True)
    assert sorted(engine.attempts) == sorted({*engine.attempts})  # each load was sent once
    assert conditions(scene) == ["failed", "loading", "loading", "serving"]  # the engine has 3 s for each
    now = 3.0
    worker.reconcile(0.0)
    assert conditions(scene) == ["failed", "failed", "failed", "serving"]

    scene.alias(version := scene.publish(5))
    hang(engine, version)
    settle(worker)
    assert time_given(scene.registry.workers.get("gpu-1").problems[-1]) == 3.0


def conditions(scene: Scene) -> list[str]:
    """The conditions of the versions, by the names under which they are served."""
    residents = scene.registry.workers.get("gpu-1").residents
    return [one.condition for one in sorted(residents, key=lambda one: one.served_as)]


def time_given(problem: WorkerProblem) -> float:
    """The seconds after which the worker gave up waiting for the engine's answer."""
    found = re.search(r"within ([0-9.e-]+) s;", problem.reason)
    assert found, problem
    return float(found[1])


@pytest.mark.parametrize("slots", [1, 8])
def test_while_the_next_version_hangs_the_previous_one_is_served(
    scene: Scene, engine: HangingVllm, slots: int
) -> None:
    """Without a free slot, the previous one must be unloaded first, and is loaded again."""
    first, stuck = scene.publish(1), scene.publish(2)
    scene.alias(first)
    worker = scene.worker(engine, timeout=TIMEOUT, slots=slots)
    settle(worker)
    hang(engine, stuck)
    scene.alias(stuck)
    worker.reconcile(0.0)
    settle(worker)
    assert scene.serves(engine) == 1
    assert NEXT_ATTEMPT.search(problem(scene))


@pytest.mark.parametrize("has_proxy", [False, True])
def test_a_version_that_the_engine_loaded_after_all_is_served_at_once(
    scene: Scene, engine: HangingVllm, has_proxy: bool
) -> None:
    stuck = scene.publish(1)
    hang(engine, stuck)
    scene.alias(stuck)
    worker = scene.worker(engine, timeout=TIMEOUT, has_proxy=has_proxy)
    worker.reconcile(0.0)
    engine.finish.set()
    assert engine.has_loaded.wait(60)
    settle(worker)
    found = scene.registry.workers.get("gpu-1")
    assert not found.problems
    assert [(one.served_as, one.condition) for one in found.residents] == [(PROD, "serving")]


def test_a_version_whose_test_request_gets_no_answer_is_not_served(scene: Scene, engine: HangingVllm) -> None:
    stuck = scene.publish(1)
    engine.hangs_with.add(stuck.digest.hex)
    scene.alias(stuck)
    worker = scene.worker(engine, timeout=TIMEOUT)
    worker.reconcile(0.0)
    settle(worker)
    assert engine.names() == {}
    assert "did not answer POST /v1/completions within 1 s" in problem(scene)
    assert [one.condition for one in scene.registry.workers.get("gpu-1").residents] == ["failed"]


def test_a_recalled_version_is_not_dropped_while_its_load_is_pending(
    scene: Scene, engine: HangingVllm
) -> None:
    """It could be served once the load has ended."""
    stuck = scene.publish(1)
    hang(engine, stuck)
    scene.alias(stuck)
    worker = scene.worker(engine, timeout=TIMEOUT)
    worker.reconcile(0.0)
    scene.stand(stuck)
    for _ in range(2):
        worker.reconcile(0.0)
    (resident,) = scene.registry.workers.residents(Ref.of_revision(TONE, stuck.digest))
    assert resident.dropped_at is None
    engine.finish.set()
    assert engine.has_loaded.wait(60)
    settle(worker)
    (resident,) = scene.registry.workers.residents(Ref.of_revision(TONE, stuck.digest))
    assert resident.dropped_at is not None
    assert engine.names() == {}


def test_a_rollout_to_a_version_that_hangs_stops(scene: Scene, engine: HangingVllm) -> None:
    first, stuck = scene.publish(1), scene.publish(2)
    scene.alias(first)
    worker = scene.worker(engine, timeout=TIMEOUT)
    settle(worker)
    hang(engine, stuck)
    scene.registry.rollouts.start(TONE, "prod", stuck.digest, RolloutPlan(steps=(50, 100)))
    for _ in range(4):
        worker.reconcile(0.0)
    (found,) = scene.registry.rollouts.list(TONE)
    assert found.stage == "stopped"
    assert "did not answer" in (found.reason or "")
    assert "next attempt" not in (found.reason or "")
    assert scene.serves(engine) == 1


def test_a_load_fails_only_after_the_engines_whole_time_and_is_not_repeated_before() -> None:
    """This holds even if the worker did not wait that long for the answer."""
    times = [0.0]
    failures = Backoff(lambda: times[-1])
    key = ("acme/a@prod", Digest.of(b"a"))
    failures.record_unanswered(key, "no answer", 20.0, 120.0)
    for seconds in (0.0, 99.0):
        times.append(seconds)
        assert (failures.is_pending(key), failures.failure_reason(key)) == (True, None)
        assert failures.is_blocked(key)
        assert "it may still load the version" in (failures.problem(key) or "")
    for seconds in (101.0, 119.0):
        times.append(seconds)
        assert (failures.is_pending(key), failures.failure_reason(key)) == (False, "no answer")
        assert failures.is_blocked(key)
    times.append(121.0)
    assert not failures.is_blocked(key)


def test_pauses_after_loads_without_an_answer_are_at_least_as_long_as_the_loads() -> None:
    now = 0.0
    failures = Backoff(lambda: now)
    key = ("acme/a@prod", Digest.of(b"a"))
    waited = []
    for _ in range(5):
        failures.record_unanswered(key, "no answer", 120.0, 120.0)
        began = now
        while failures.is_blocked(key):
            now += 10.0
        waited.append(now - began)
    assert waited == [120, 240, 480, 900, 900]
