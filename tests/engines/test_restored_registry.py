"""A registry is restored from a backup: its workers notice, converge, and still know the recalls that it
lost.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import Ref
from adaptry.integrations.serving.follow.reconciler import Reconciler
from adaptry.operations import base_registry
from adaptry.operations.recall_status import recall_status
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.backup import create, restore
from adaptry.storage.connect import open_local
from adaptry.storage.tokens import create_token
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry.testing.warm_python import WarmPython, run_warm
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

from .conftest import PROD, TONE, Scene, settle


@contextmanager
def restored(scene: Scene, backup: Path) -> Iterator[None]:
    """The scene's registry is lost, and a server on the restored one takes its place."""
    folder = scene.folder / f"restored-{backup.name}"
    restore(backup, folder)
    before = scene.server, scene.registry
    with running_server(ServerSettings(data=folder)) as server:
        scene.server, scene.registry = server, server.registry()
        yield
    scene.server, scene.registry = before


def backed_up(scene: Scene) -> Path:
    registry = open_local(scene.folder / "data")
    try:
        create(registry, scene.folder / "backup")
    finally:
        registry.close()
    return scene.folder / "backup"


def test_a_worker_follows_the_restored_registry_back(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine()
    settle(scene.worker(engine))
    backup = backed_up(scene)
    scene.alias(second)
    settle(scene.worker(engine))
    assert scene.serves(engine) == 2
    with restored(scene, backup):
        worker: Reconciler = scene.worker(engine)
        settle(worker)
        assert scene.serves(engine) == 1
        assert any("restored from a backup" in line for line in scene.story)
        scene.alias(scene.registry.versions.get(Ref.parse("acme/tone@2")))
        settle(worker)
        assert scene.serves(engine) == 2


def test_a_registry_with_older_generations_moves_no_name_back(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine()
    settle(scene.worker(engine))
    old = scene.folder / "copy"  # without `adaptry restore`; and by another process, since SQLite's locks are
    subprocess.run(["cp", "-r", str(scene.folder / "data"), str(old)], check=True)  # those of a process
    scene.alias(second)
    settle(scene.worker(engine))
    current = scene.server
    with running_server(ServerSettings(data=old)) as scene.server:
        worker = scene.worker(engine)
        settle(worker)
        assert scene.serves(engine) == 2
        (problem,) = scene.server.registry().workers.get("gpu-1").problems
        assert "it has acme/tone@prod at generation 1, but this worker has already seen 2" in problem.reason
    scene.server = current
    scene.alias(first)
    settle(scene.worker(engine))
    assert scene.serves(engine) == 1
    assert scene.registry.workers.get("gpu-1").problems == ()


def test_a_worker_proves_a_recall_that_the_restored_registry_has_forgotten(scene: Scene) -> None:
    first, second = scene.publish(1), scene.publish(2)
    scene.alias(first)
    engine = scene.engine()
    worker = scene.worker(engine)
    settle(worker)
    backup = backed_up(scene)
    scene.stand(first)
    settle(worker)
    assert scene.serves(engine) is None
    with restored(scene, backup):
        assert scene.registry.versions.get(Ref.parse("acme/tone@1")).state == "active"
        worker = scene.worker(engine)
        worker.reconcile(0.0)
        assert scene.serves(engine) is None
        found = scene.registry.versions.get(Ref.parse("acme/tone@1"))
        assert (found.state, found.last_state_change is not None) == ("quarantined", True)
        settle(worker)
        assert recall_status(scene.registry, Ref.parse("acme/tone@1")).is_complete
        assert "recall.remembered" in [one.kind for one in scene.registry.events.read(0, 200).items]
        scene.stand(first, "active")  # an administrator decides otherwise
        settle(worker)
        assert scene.serves(engine) == 1
        assert second.number == 2


def test_a_version_that_is_pushed_again_after_its_recall_was_forgotten_is_held_back(scene: Scene) -> None:
    first = scene.publish(1)
    scene.alias(first)
    backup = backed_up(scene)
    second = scene.publish(2)  # the backup does not have it
    scene.alias(second)
    engine = scene.engine()
    worker = scene.worker(engine)
    settle(worker)
    scene.stand(second)
    settle(worker)
    with restored(scene, backup):
        settle(scene.worker(engine))
        again = scene.publish(2)
        assert again.digest == second.digest
        assert scene.registry.versions.get(Ref(TONE)).number == 1
        assert scene.registry.versions.get(Ref.parse(f"acme/tone@{again.number}")).state == "quarantined"


def test_a_proof_that_the_registry_did_not_sign_changes_nothing(scene: Scene) -> None:
    first = scene.publish(1)
    scene.alias(first)
    engine = scene.engine()
    worker = scene.worker(engine)
    settle(worker)
    backup = backed_up(scene)
    scene.stand(first)
    settle(worker)
    state = scene.memories["gpu-1"]
    (proof,) = state.state.proofs.values()
    state.state.proofs = {first.digest: proof.model_copy(update={"proof": "0" * 64})}
    state.save()
    with restored(scene, backup):
        settle(scene.worker(engine))
        assert scene.registry.versions.get(Ref.parse("acme/tone@1")).state == "active"


@contextmanager
def serve(data: Path) -> Iterator[str]:
    """Runs `adaptry serve` in a separate process, which is killed at the end."""
    with WarmPython(
        [sys.executable, "-m", "adaptry_cli", "serve", "--data", str(data), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"http://\S+?(?=[\s,;]|$)", line):
                    yield found[0]
                    break
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_real_server_is_backed_up_during_pushes_destroyed_and_restored(
    scene: Scene, tmp_path: Path
) -> None:
    data, backups = tmp_path / "served", tmp_path / "backups"
    loras = [tiny_lora(tmp_path / f"pushed-{seed}", seed=seed) for seed in range(6)]
    adaptry = [sys.executable, "-m", "adaptry_cli"]
    with serve(data) as url:
        token = (data / "admin-token").read_text().strip()
        registry = HttpRegistry(url, token)
        base_registry.register_base(
            registry,
            open_checkpoint(tiny_base(tmp_path / "of-it")),
            ("org/tiny",),
            visibility="internal",
            cache=tmp_path / "c",
        )
        for seed, lora in enumerate(loras):
            version = push(registry, open_dir(lora), TONE).version
            taking = WarmPython([*adaptry, "backup", str(backups), "--registry", str(data)])
            if seed == 0:
                registry.aliases.move(TONE, "prod", version.digest, was=None)
            push(registry, open_dir(tiny_lora(tmp_path / f"meanwhile-{seed}", seed=100 + seed)), "acme/storm")
            assert taking.wait() == 0
        refused = run_warm(
            [*adaptry, "restore", str(backups), "--registry", str(data), "--replace"], check=False
        )
        assert refused.returncode == 4
    shutil.rmtree(data)
    run_warm([*adaptry, "restore", str(backups), "--registry", str(data)], check=True)
    with serve(data) as url:
        fresh = (data / "admin-token").read_text().strip()
        assert fresh != token
        assert HttpRegistry(url, fresh).adapters.get(TONE).versions == 6
        worker_token = create_token(open_local(data).catalog, "gpu-9", "worker", ("acme",), None)
        engine = scene.engine()
        scene.server.url = url
        worker = scene.worker(engine, "gpu-9", token=worker_token)
        settle(worker)
        (loaded,) = HttpRegistry(url, fresh).workers.get("gpu-9").residents
        assert (loaded.served_as, loaded.number, loaded.condition) == (PROD, 1, "serving")
