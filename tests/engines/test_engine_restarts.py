"""An engine restarts between two passes, or reports success without acting: no adapter is served on another
base, and no adapter is reported that the engine does not have.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.core.errors import CheckFailed
from adaptry.integrations.serving.follow.reconciler import Reconciler
from adaptry.integrations.serving.served_base import START_SECONDS
from adaptry.testing.samples import tiny_base

from .conftest import PROD, Scene, settle
from .fakes import FakeEngine, FakeVllm


def replace_base(folder: Path) -> None:
    """Replaces the base by other weights of the same shapes in the same folder."""
    shutil.rmtree(folder)
    tiny_base(folder, seed=5)


def served_scene(scene: Scene, kind: str, token: str | None = None) -> tuple[FakeEngine, Reconciler, Path]:
    """An engine that serves a registered base from a folder, and a worker that identifies the base only by
    this folder.
    """
    base = scene.folder / "base"
    engine = scene.engine(kind, models=(str(base),))
    scene.alias(scene.publish(1))
    worker = scene.worker(engine, base=None, token=token)
    settle(worker)
    assert scene.serves(engine) == 1
    return engine, worker, base


def problem(scene: Scene) -> str:
    (problem,) = scene.registry.workers.get("gpu-1").problems
    assert problem.served_as == PROD
    return problem.reason


def test_a_worker_shows_the_registrys_name_of_its_base_even_while_its_engine_does_not_answer(
    scene: Scene,
) -> None:
    engine, worker, base = served_scene(scene, "vllm")
    for is_up in (True, False):
        found = scene.registry.workers.get("gpu-1")
        assert (found.base, found.base_name, found.is_answering) == (str(base), "org/tiny", is_up)
        engine.stop()
        worker.reconcile(0.0)


@pytest.mark.parametrize("is_worker_new", [False, True])
def test_a_base_folder_that_is_replaced_while_its_engine_runs_does_not_change_what_the_engine_serves(
    scene: Scene, is_worker_new: bool
) -> None:
    """This happens if the next base is put in place before the restart. The worker looks at the folder again
    when it starts, and when its engine did not answer.
    """
    engine, worker, base = served_scene(scene, "vllm")
    replace_base(base)
    if is_worker_new:
        worker = scene.worker(engine, base=None)
    engine.is_starting = True
    assert not worker.reconcile(0.0)
    engine.is_starting = False
    settle(worker)
    assert list(engine.names()) == [PROD]
    assert scene.registry.workers.get("gpu-1").base_name == "org/tiny"
    scene.alias(scene.publish(2))
    settle(worker)
    assert scene.serves(engine) == 2


def rewrite(base: Path) -> None:
    (base / "config.json").write_bytes((base / "config.json").read_bytes())


def rename(base: Path) -> None:
    """Renames like `mv`, which keeps the times of the files."""
    base.rename(base.with_name("other")).rename(base)


def lead_elsewhere(base: Path) -> None:
    base.rename(base.with_name("other"))
    base.symlink_to(base.with_name("other"))


def started_just_after(base: Path, engine: FakeEngine) -> None:
    """Makes the engine's start later than the completion of the base's files."""
    assert isinstance(engine, FakeVllm)
    engine.started_at = max(path.stat().st_ctime for path in (base, *base.iterdir())) - START_SECONDS + 1e-4


def test_a_base_folder_that_is_older_than_its_engine_identifies_the_base(scene: Scene) -> None:
    base = scene.folder / "base"
    engine = scene.engine("vllm", models=(str(base),))
    started_just_after(base, engine)
    scene.alias(scene.publish(1))
    (base / "README.md").write_text("A new file changes no weights.")
    settle(scene.worker(engine, base=None))
    assert scene.serves(engine) == 1


@pytest.mark.parametrize("change", [rewrite, rename, lead_elsewhere])
def test_a_base_folder_that_changed_after_the_start_of_its_engine_identifies_no_base(
    scene: Scene, change: Callable[[Path], object]
) -> None:
    """The engine may have read the previous files."""
    base = scene.folder / "base"
    engine = scene.engine("vllm", models=(str(base),))
    started_just_after(base, engine)
    scene.alias(scene.publish(1))
    change(base)
    with pytest.raises(CheckFailed, match=r"changed after the engine started.*restart it.*--base"):
        scene.worker(engine, base=None).reconcile(0.0)
    assert engine.names() == {}
    settle(scene.worker(engine))
    assert scene.serves(engine) == 1


@pytest.mark.parametrize("kind", ["vllm", "sglang", "mistralrs"])
def test_an_engine_that_came_back_unnoticed_with_another_base_serves_no_adapter_of_the_first(
    scene: Scene, kind: str
) -> None:
    engine, worker, base = served_scene(scene, kind)
    engine.stop()
    replace_base(base)
    engine.start()
    worker.reconcile(0.0)
    assert engine.names() == {}
    assert "this engine serves another model" in problem(scene)
    assert scene.registry.workers.get("gpu-1").residents[0].condition == "failed"


def test_adapters_that_a_restarted_vllm_has_from_its_start_are_checked_on_its_new_base(scene: Scene) -> None:
    """They are loaded by `--lora-modules`."""
    engine, worker, base = served_scene(scene, "vllm")
    assert isinstance(engine, FakeVllm)
    folder = engine.names()[PROD]
    engine.stop()
    replace_base(base)
    engine.start()
    engine.post("/v1/load_lora_adapter", {"lora_name": PROD, "lora_path": folder})
    worker.reconcile(0.0)
    assert engine.names() == {}
    assert "this engine serves another model" in problem(scene)


def test_a_worker_that_starts_beside_an_engine_with_another_base_than_before_checks_its_adapters(
    scene: Scene,
) -> None:
    engine, _, base = served_scene(scene, "vllm")
    assert isinstance(engine, FakeVllm)
    folder = engine.names()[PROD]
    engine.stop()
    replace_base(base)
    engine.start()
    engine.post("/v1/load_lora_adapter", {"lora_name": PROD, "lora_path": folder})
    scene.worker(engine, base=None).reconcile(0.0)
    assert engine.names() == {}


@pytest.mark.parametrize("is_replaced", [False, True])
def test_without_the_registry_an_engine_gets_its_adapters_again_only_on_the_same_base(
    scene: Scene, is_replaced: bool
) -> None:
    token = scene.token("gpu-1")
    engine, worker, base = served_scene(scene, "vllm", token)
    scene.server.call("POST", "/api/v1/tokens/revoke", {"token": token})
    engine.stop()
    worker.reconcile(0.0)
    assert any("unknown or revoked" in line and "restart follow" in line for line in scene.story)
    if is_replaced:
        replace_base(base)
    engine.start()
    worker.reconcile(0.0)
    assert list(engine.names()) == ([] if is_replaced else [PROD])


def test_an_engine_on_the_same_base_keeps_its_adapters_when_its_worker_starts_again(scene: Scene) -> None:
    engine, _, _ = served_scene(scene, "vllm")
    before = engine.names()
    settle(scene.worker(engine, base=None))
    assert engine.names() == before
    assert scene.story == ["loaded acme/tone@prod: acme/tone@1"]


def test_a_version_that_the_engine_accepts_and_does_not_list_is_a_problem(scene: Scene) -> None:
    engine = scene.engine("vllm")
    engine.is_another_replica = True
    scene.alias(scene.publish(1))
    worker = scene.worker(engine)
    worker.reconcile(0.0)
    assert problem(scene).startswith(f"the engine reported {PROD} as loaded, but does not list it; failed")
    assert worker.residency.problems
    assert not any(line.startswith("loaded") for line in scene.story)


def test_a_version_that_the_engine_accepts_without_loading_it_does_not_replace_another(scene: Scene) -> None:
    engine = scene.engine("vllm")
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    worker = scene.worker(engine)
    settle(worker)
    engine.is_another_replica = True
    scene.alias(second)
    worker.reconcile(0.0)
    assert "does not list it" in problem(scene)
    assert scene.serves(engine) == 1
