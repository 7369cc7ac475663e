"""Pushes that a server executes together: each has its own result or error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Semaphore

from tests.storage.push_process import push_in_one_batch

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.inspection.inspector import InspectorBusy
from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, QuotaExceeded, Unavailable
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.quotas import QuotaRequest
from adaptry.registry.records import PushResult, StateChange
from adaptry.storage.catalog import inspections
from adaptry.storage.connect import open_local
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
Loras = Callable[[int], list[Path]]


def numbers(outcomes: list[PushResult | Exception]) -> list[int | type[Exception]]:
    return [type(one) if isinstance(one, Exception) else one.version.number for one in outcomes]


def test_a_refused_push_does_not_fail_its_neighbours(folder: Path, loras: Loras) -> None:
    registry = open_local(folder)
    first, revoked, last = loras(3)
    digest = push(registry, open_dir(revoked), "acme/old").version.digest
    registry.versions.set_state(
        AdapterName.parse("acme/old"), digest, StateChange(state="revoked", reason="leaks"), 0
    )
    outcomes = push_in_one_batch(registry, map(open_dir, (first, revoked, last)), TONE)
    assert numbers(outcomes) == [1, CheckFailed, 2]
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_push_stores_the_inspection_of_its_own_weights_only(
    folder: Path, loras: Loras, tmp_path: Path
) -> None:
    registry = open_local(folder)
    name, shape = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", (4, 16)
    nan = tiny_lora(tmp_path / "nan", seed=9, extra={name: ("F32", shape, b"\xff" * 4 * 64)})
    outcomes = push_in_one_batch(registry, [open_dir(nan), *map(open_dir, loras(2))], TONE)
    assert numbers(outcomes) == [CheckFailed, 1, 2]
    digest = Digest.of((nan / "adapter_model.safetensors").read_bytes())
    with registry.catalog.read_prepared() as tx:
        assert inspections.find(tx, {digest}) == {}


def test_the_same_files_twice_in_a_batch_are_one_version(folder: Path, loras: Loras) -> None:
    registry = open_local(folder)
    (lora,) = loras(1)
    outcomes = push_in_one_batch(registry, [open_dir(lora)] * 2, TONE)
    assert numbers(outcomes) == [1, 1]
    assert [isinstance(one, PushResult) and one.is_new for one in outcomes] == [True, False]
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_push_whose_file_cannot_be_written_does_not_fail_its_neighbours(folder: Path, loras: Loras) -> None:
    registry = open_local(folder)
    made = loras(4)
    of_each = [Digest.of((lora / "adapter_model.safetensors").read_bytes()).hex[:2] for lora in made]
    broken = next(fan for fan in of_each if of_each.count(fan) == 1)
    (folder / "blobs" / "sha256" / broken).touch()  # a file in place of the folder that the push needs
    outcomes = push_in_one_batch(registry, map(open_dir, made), TONE)
    assert [type(one) for one in outcomes] == [
        Unavailable if fan == broken else PushResult for fan in of_each
    ]
    (folder / "blobs" / "sha256" / broken).unlink()
    assert verify(registry.catalog, registry.blobs) == ()


def test_pushes_in_one_batch_cannot_exceed_a_quota_together(folder: Path, loras: Loras) -> None:
    registry = open_local(folder)
    registry.principals.create("user", "ann")
    registry.quotas.set(QuotaRequest(scope="namespace", name="acme", versions=2))
    ann = registry.on_behalf_of(Identity("ann", (Grant("owner", Resource.parse("*")),), principal=1))
    outcomes = push_in_one_batch(ann, map(open_dir, loras(3)), TONE)
    assert numbers(outcomes) == [1, 2, QuotaExceeded]
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_batch_does_not_wait_while_other_namespaces_occupy_all_inspecting_processes(
    folder: Path, loras: Loras, tmp_path: Path
) -> None:
    registry = open_local(folder)
    inspector, released, began = registry.context.inspector, Event(), Semaphore(0)
    larger = [open_dir(tiny_lora(tmp_path / f"larger-{seed}", hidden=256, seed=seed)) for seed in range(3)]
    header = larger[0].header

    def chunks(start: int) -> Iterator[bytes]:
        began.release()
        released.wait()
        yield bytes(max(info.end for info in header.tensors.values()) - start)

    with ThreadPoolExecutor(16) as threads:
        others = [threads.submit(inspector.inspect, header.tensors, chunks, f"other-{n}") for n in range(16)]
        try:
            for _ in range(max(2, min(8, os.cpu_count() or 1))):  # all processes of the inspector
                began.acquire()
            outcomes = push_in_one_batch(registry, [*larger, open_dir(loras(1)[0])], TONE)
        finally:
            released.set()
        # The last one has so few numbers that it needs no process.
        assert numbers(outcomes) == [InspectorBusy] * 3 + [1]
        assert all(other.result() for other in others)
    assert numbers(push_in_one_batch(registry, larger, TONE)) == [2, 3, 4]
