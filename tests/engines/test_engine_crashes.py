"""An engine that ends whenever it loads or tests a certain version, and is started again each time: all other
adapters are served, and the version is tried less and less often.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.follow.reconciler import Reconciler
from adaptry.integrations.serving.worker.backoff import Backoff
from adaptry.registry.records import VersionInfo

from .conftest import PROD, Scene, settle
from .fakes import Answer, Broken, FakeEngine, FakeLlamaCpp, FakeVllm

FIRST, LATER = AdapterName.parse("acme/a"), AdapterName.parse("acme/zebra")


class CrashingVllm(FakeVllm):
    """Ends when it loads a version of `ends_at_load`, or gets a request for one of `ends_at_request`; stops
    answering when it loads one of `stalls_at_load`."""

    ends_at_load: frozenset[str] = frozenset()
    ends_at_request: frozenset[str] = frozenset()
    stalls_at_load: frozenset[str] = frozenset()
    crashes = 0

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        if path == "/v1/load_lora_adapter":
            self._end_if(body["lora_path"], self.ends_at_load)
            if any(digest in body["lora_path"] for digest in self.stalls_at_load):
                self._stall()
        if path == "/v1/completions":
            self._end_if(self.names().get(body["model"], ""), self.ends_at_request)
        return super().post(path, body)

    def _stall(self) -> None:
        self.crashes += 1
        self.is_starting = True
        self._lock.release()
        try:
            assert self.is_restarted.wait(60)
        finally:
            self._lock.acquire()

    def start(self) -> None:
        self.is_starting = False
        self.is_restarted = threading.Event()
        super().start()

    def stop(self) -> None:
        self.is_restarted.set()
        super().stop()

    def _end_if(self, folder: str, digests: frozenset[str]) -> None:
        if any(digest in folder for digest in digests):
            self.crashes += 1
            ending = threading.Thread(target=self.stop)
            ending.start()
            self._lock.release()  # `stop` answers none of the running requests
            try:
                ending.join(60)
            finally:
                self._lock.acquire()


@pytest.fixture
def engine(scene: Scene) -> CrashingVllm:
    made = CrashingVllm()
    scene._stack.callback(made.stop)
    return made


def poison(engine: CrashingVllm, version: VersionInfo, moment: str = "ends_at_load") -> None:
    setattr(engine, moment, frozenset({version.digest.hex}))


def settle_with_a_supervisor(worker: Reconciler, engine: FakeEngine) -> None:
    """Something starts the engine again whenever it has ended."""
    for _ in range(20):
        if worker.reconcile(0.0):
            return
        if engine.is_starting:
            engine.stop()
        if not engine.is_up:
            engine.start()
    raise AssertionError("not settled after 20 passes")


@pytest.mark.parametrize("moment", ["ends_at_load", "ends_at_request", "stalls_at_load"])
def test_a_version_that_ends_the_engine_does_not_keep_others_from_being_served(
    scene: Scene, engine: CrashingVllm, moment: str
) -> None:
    poisonous = scene.publish(1, FIRST)
    poison(engine, poisonous, moment)
    scene.alias(poisonous)
    scene.alias(scene.publish(2, LATER))
    worker = scene.worker(engine, timeout=3.0)
    settle_with_a_supervisor(worker, engine)
    assert list(engine.names()) == [f"{LATER}@prod"]
    assert engine.crashes == 1
    found = scene.registry.workers.get("gpu-1")
    (problem,) = found.problems
    assert "while it loaded or tested this version" in problem.reason
    assert "next attempt" in problem.reason
    assert [one.condition for one in found.residents if one.name == FIRST] == ["failed"]
    assert any("while it loaded or tested this version" in line for line in scene.story)


@pytest.mark.parametrize("slots", [1, 8])
def test_the_previous_version_is_served_after_a_version_has_ended_the_engine(
    scene: Scene, engine: CrashingVllm, slots: int
) -> None:
    scene.alias(scene.publish(1))
    worker = scene.worker(engine, slots=slots)
    settle(worker)
    poisonous = scene.publish(2)
    poison(engine, poisonous)
    scene.alias(poisonous)
    settle_with_a_supervisor(worker, engine)
    assert (scene.serves(engine), engine.crashes) == (1, 1)
    assert [one.served_as for one in scene.registry.workers.get("gpu-1").problems] == [PROD]


class UnstartableLlamaCpp(FakeLlamaCpp):
    """Does not start while its list has a file with one of the weights in `refuses`."""

    def receive(self, path: str, authorization: str | None) -> None:
        if path != "/_restart":
            super().receive(path, authorization)

    def post(self, path: str, body: Any) -> Answer:
        answer = super().post(path, body)
        if path == "/_restart":
            self.is_starting = not self.refuses.isdisjoint(self._held)
            if self.is_starting:
                raise Broken(500, "failed to load a LoRA adapter")
        return answer


def test_a_llamacpp_that_does_not_start_with_a_version_is_restarted_without_it(scene: Scene) -> None:
    engine = UnstartableLlamaCpp()
    scene._stack.callback(engine.stop)
    scene.alias(scene.publish(1))
    worker = scene.worker(engine)
    settle(worker)
    second = scene.publish(2)
    engine.refuses |= {weights for weights, version in scene.weights.items() if version == second}
    scene.alias(second)
    settle_with_a_supervisor(worker, engine)
    assert scene.serves(engine) == 1
    (problem,) = scene.registry.workers.get("gpu-1").problems
    assert "was restarted without it" in problem.reason


def test_pauses_after_crashes_grow_to_a_day() -> None:
    now = 0.0
    failures = Backoff(lambda: now)
    key = ("acme/a@prod", Digest.of(b"a"))
    waited = []
    for _ in range(6):
        failures.record_crash(key, "it ended")
        began = now
        while failures.is_blocked(key):
            now += 30.0
        waited.append(now - began)
    assert waited == [30, 240, 1920, 15_360, 86_400, 86_400]
