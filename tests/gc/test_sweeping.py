"""Which files a sweep deletes, which it keeps, and that garbage is only marked when it is first found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from adaptry.adapters.adapter import Adapter
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push, upload
from adaptry.registry.records import AdapterEdit, PushOptions
from adaptry.storage.catalog.garbage import OwnedFile
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.maintenance import gc
from adaptry.storage.maintenance.gc import GarbageScan, OrphanBlob, collect_garbage, plan_sweep
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_base

NOW = timedelta(0)
DAY = timedelta(hours=24)
TONE, VOICE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/voice")
MakeLora = Callable[[int], Adapter]


def send(registry: LocalRegistry, name: AdapterName, adapter: Adapter) -> Manifest:
    """Uploads an adapter's files, like a push that dies before it makes a version."""
    files = {path: (size, _digest(adapter, path)) for path, size in adapter.content.sizes.items()}
    for path, (_, digest) in files.items():
        upload(registry, name, adapter.content, path, digest)
    return Manifest.of(files)


def _digest(adapter: Adapter, path: str) -> Digest:
    return Digest.of_chunks(adapter.content.chunks(path))


def blobs(registry: LocalRegistry) -> set[Digest]:
    return set(registry.blobs.digests())


def later(registry: LocalRegistry, by: timedelta) -> LocalRegistry:
    """The same registry with a clock that is this much later."""
    clock = registry.clock
    return LocalRegistry(
        RegistryContext(registry.catalog, registry.blobs, registry.identity, clock=lambda: clock() + by)
    )


def test_needed_files_stay_with_any_grace_period(
    registry: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    push(registry, lora(1), TONE, options=PushOptions(alias="prod"))
    push(registry, lora(2), TONE)
    base = open_checkpoint(tiny_base(tmp_path / "base"))
    register_base(registry, base, ("org/tiny",), store=True)
    before = blobs(registry)

    swept = collect_garbage(registry, grace=NOW)

    assert (swept.taken, swept.deleted, swept.waiting) == (0, 0, 0)
    assert blobs(registry) == before
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_deleted_adapters_bytes_are_deleted_after_the_grace_period(
    registry: LocalRegistry, lora: MakeLora
) -> None:
    push(registry, lora(1), TONE)
    registry.adapters.delete(TONE)

    first = collect_garbage(registry)
    assert (first.deleted, first.waiting) == (0, 2)
    assert collect_garbage(later(registry, DAY - timedelta(minutes=1))).deleted == 0
    last = collect_garbage(later(registry, DAY + timedelta(minutes=1)))

    assert last.deleted == 2
    assert last.bytes == first.waiting_bytes > 0
    assert blobs(registry) == set()


def test_bytes_of_another_adapter_stay(registry: LocalRegistry, lora: MakeLora) -> None:
    push(registry, lora(1), TONE)
    push(registry, lora(1), VOICE)
    registry.adapters.delete(TONE)

    collect_garbage(registry, grace=NOW)

    assert verify(registry.catalog, registry.blobs) == ()
    assert len(blobs(registry)) == 2


def test_a_push_that_died_before_it_made_a_version_leaves_nothing(
    registry: LocalRegistry, lora: MakeLora
) -> None:
    send(registry, TONE, lora(1))
    assert len(blobs(registry)) == 2

    swept = collect_garbage(registry, grace=NOW)

    assert (swept.taken, swept.deleted) == (2, 2)
    assert blobs(registry) == set()
    assert not registry.files.has(TONE, _digest(lora(1), "adapter_config.json"))


def test_files_are_deleted_one_grace_period_after_they_were_found(
    registry: LocalRegistry, lora: MakeLora
) -> None:
    send(registry, TONE, lora(1))
    assert collect_garbage(registry).waiting == 2
    assert collect_garbage(later(registry, DAY)).deleted == 2


def test_a_query_for_a_marked_file_removes_its_mark(registry: LocalRegistry, lora: MakeLora) -> None:
    manifest = send(registry, TONE, lora(1))
    collect_garbage(registry)

    assert all(registry.files.has(TONE, entry.sha256) for entry in manifest.files)
    assert collect_garbage(later(registry, DAY)).deleted == 0

    registry.versions.put(TONE, manifest.to_bytes(), PushOptions())
    assert collect_garbage(later(registry, 3 * DAY), grace=NOW).deleted == 0
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_version_with_marked_files_removes_their_marks(registry: LocalRegistry, lora: MakeLora) -> None:
    manifest = send(registry, TONE, lora(1))
    collect_garbage(registry)
    found = gc.scan_garbage(registry.catalog, registry.blobs)

    registry.versions.put(TONE, manifest.to_bytes(), PushOptions())
    gc.sweep(registry.catalog, registry.blobs, plan_sweep(found, registry.clock() + 2 * DAY, DAY))

    assert verify(registry.catalog, registry.blobs) == ()


def test_a_rename_to_a_name_with_marked_files_removes_their_marks(
    registry: LocalRegistry, lora: MakeLora
) -> None:
    send(registry, VOICE, lora(1))
    collect_garbage(registry)
    found = gc.scan_garbage(registry.catalog, registry.blobs)
    push(registry, lora(1), TONE)
    registry.adapters.rename(TONE, VOICE)

    gc.sweep(registry.catalog, registry.blobs, plan_sweep(found, registry.clock() + 2 * DAY, DAY))

    assert verify(registry.catalog, registry.blobs) == ()


def test_inputs_of_derived_versions_stay_after_their_deletion(
    registry: LocalRegistry, lora: MakeLora
) -> None:
    parent = push(registry, lora(1), TONE).version
    push(registry, lora(2), VOICE, parents=(parent.digest,))
    registry.adapters.delete(TONE)

    collect_garbage(registry, grace=NOW)
    assert len(blobs(registry)) == 3  # both weights, and the config they share

    registry.adapters.delete(VOICE)
    collect_garbage(registry, grace=NOW)
    assert blobs(registry) == set()


def test_files_of_a_running_push_stay(registry: LocalRegistry, lora: MakeLora) -> None:
    adapter = lora(1)
    config = "adapter_config.json"
    upload(registry, TONE, adapter.content, config, _digest(adapter, config))
    weights = "adapter_model.safetensors"
    session = registry.uploads.open(TONE, _digest(adapter, weights), adapter.content.sizes[weights])
    registry.uploads.append(session, 0, [adapter.content.read(weights, 0, 100)])

    swept = collect_garbage(registry, grace=NOW)

    assert (swept.taken, swept.deleted, swept.uploads) == (0, 0, 0)
    assert push(registry, adapter, TONE).is_new


def test_pushing_files_again_that_are_being_deleted_keeps_them(
    registry: LocalRegistry, lora: MakeLora
) -> None:
    push(registry, lora(1), TONE)
    registry.adapters.delete(TONE)
    collect_garbage(registry)
    push(registry, lora(1), TONE)

    assert collect_garbage(later(registry, 2 * DAY)).deleted == 0
    assert verify(registry.catalog, registry.blobs) == ()


def test_a_dry_run_reports_deletions_and_changes_nothing(registry: LocalRegistry, lora: MakeLora) -> None:
    push(registry, lora(1), TONE)
    registry.adapters.delete(TONE)
    collect_garbage(registry)
    before = blobs(registry)

    foreseen = collect_garbage(later(registry, DAY), dry_run=True)

    assert (foreseen.is_dry, blobs(registry)) == (True, before)
    done = collect_garbage(later(registry, DAY))
    assert (foreseen.deleted, foreseen.bytes, foreseen.revisions) == (
        done.deleted,
        done.bytes,
        done.revisions,
    )


def test_only_an_administrator_sweeps(registry: LocalRegistry) -> None:
    for identity in (
        Identity.with_role("ada", "writer", ("*",)),
        Identity.with_role("ann", "admin", ("acme",)),
    ):
        with pytest.raises(PermissionDenied, match="administrator"):
            collect_garbage(registry.on_behalf_of(identity))


def test_sweeping_an_empty_registry_deletes_nothing(registry: LocalRegistry) -> None:
    registry.adapters.create(TONE, AdapterEdit())
    assert collect_garbage(registry, grace=NOW).model_dump(exclude={"uploads"}, exclude_defaults=True) == {}


def test_a_manifest_that_cannot_be_read_stops_a_sweep(registry: LocalRegistry, lora: MakeLora) -> None:
    push(registry, lora(1), TONE)
    send(registry, TONE, lora(2))
    with registry.catalog.write() as tx:
        tx.execute(text("UPDATE revisions SET manifest = :bad WHERE length(manifest) > 30"), {"bad": b"{"})
    before = blobs(registry)
    with pytest.raises(CorruptData):
        collect_garbage(registry, grace=NOW)
    assert blobs(registry) == before


def test_a_registry_in_postgresql_and_a_bucket_is_swept_in_the_same_way(
    postgres: PostgresServer, s3_place: str, lora: MakeLora, tmp_path: Path
) -> None:
    with closing(open_local(tmp_path / "far", catalog=postgres.database(), blobs=s3_place)) as registry:
        push(registry, lora(1), TONE)
        push(registry, lora(2), VOICE)
        send(registry, VOICE, lora(3))
        registry.adapters.delete(TONE)
        assert (collect_garbage(registry).deleted, collect_garbage(registry).deleted) == (0, 0)

        swept = collect_garbage(later(registry, DAY))

        assert (swept.taken, swept.deleted) == (1, 2)
        assert len(blobs(registry)) == 2
        assert verify(registry.catalog, registry.blobs) == ()


class TestThePlan:
    NOW = datetime(2026, 1, 2, tzinfo=UTC)

    def test_marks_new_garbage_and_deletes_garbage_after_the_grace_period(self) -> None:
        digest = Digest.of(b"x")
        new, recent, old = (
            OwnedFile("acme/tone", digest, 3, since)
            for since in (None, self.NOW - timedelta(hours=23), self.NOW - DAY)
        )
        decided = plan_sweep(GarbageScan(unneeded=(new, recent, old)), self.NOW, DAY)
        assert (decided.mark_files, decided.release_files) == ((new,), (old,))

    def test_unmarks_files_that_are_needed_again(self) -> None:
        had = OwnedFile("acme/tone", Digest.of(b"x"), 3, self.NOW - 9 * DAY)
        decided = plan_sweep(GarbageScan(needed=(had,)), self.NOW, NOW)
        assert (decided.unmark_files, decided.release_files) == ((had,), ())

    def test_without_grace_new_orphans_are_deleted_at_once_and_new_rows_at_the_second_scan(self) -> None:
        orphan, had = OrphanBlob(Digest.of(b"y"), 3, None), OwnedFile("acme/tone", Digest.of(b"x"), 3, None)
        decided = plan_sweep(GarbageScan(unneeded=(had,), orphans=(orphan,)), self.NOW, NOW)
        assert (decided.release_files, decided.delete_orphans) == ((), (orphan,))
