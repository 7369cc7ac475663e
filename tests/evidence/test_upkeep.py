"""Evidence and its files survive sweeps, backups and upgrades; a changed row is detected."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.storage.downgrade import back_to_0018

from adaptry.adapters.adapter import open_dir
from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.digest import Digest
from adaptry.core.errors import PermissionDenied
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.mirror.evidence import copy_evidence
from adaptry.operations.mirror.plan import MirrorSelection
from adaptry.operations.mirror.sync import sync_once
from adaptry.operations.repair import repair_registry
from adaptry.operations.transfer import push
from adaptry.registry.evidence import WithdrawalRequest
from adaptry.storage.backup import create, restore
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.gc import collect_garbage
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.contract.evidence import FILE, RESULTS, SAMPLES, TONE, add_results, store
from adaptry.testing.samples import tiny_lora


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    """A registry with a version that has evidence and a logged metric."""
    registry = open_local(tmp_path / "registry")
    push(registry, open_dir(tiny_lora(tmp_path / "out")), TONE)
    registry.metrics.log(Ref(TONE), {"accuracy": 0.9})
    add_results(registry)
    return registry


def files_of(registry: LocalRegistry) -> set[bytes]:
    found = registry.evidence.list(Ref(TONE)).items
    return {
        b"".join(registry.evidence.read_file(one.id, "file" if entry.path == "file" else "samples"))
        for one in found
        for entry in registry.evidence.files(one.id)
    }


def test_a_sweep_keeps_the_files_of_evidence_even_if_it_is_withdrawn(registry: LocalRegistry) -> None:
    unused = b"nobody added this"
    store(registry, unused)
    id = registry.evidence.list(Ref(TONE)).items[0].id
    registry.evidence.withdraw(id, WithdrawalRequest(reason="for a test", whole_file=True))
    for _ in range(3):
        collect_garbage(registry, grace=timedelta(0))
    assert not registry.blobs.has(Digest.of(unused))
    assert files_of(registry) == {RESULTS, SAMPLES}
    registry.adapters.delete(TONE)
    for _ in range(3):
        collect_garbage(registry, grace=timedelta(0))
    assert not registry.blobs.has(Digest.of(RESULTS))


def test_a_principal_with_only_evidence_add_uploads_its_files_and_pushes_nothing(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    acme = Resource.parse("acme")
    eva = registry.on_behalf_of(Identity("eva", (Grant("viewer", acme), Grant("evidence.add", acme))))
    store(eva, b"new results")
    file = FILE.model_copy(update={"digest": Digest.of(b"new results")})
    assert eva.evidence.add(Ref(TONE), file).added == 2
    with pytest.raises(PermissionDenied, match="push"):
        push(eva, open_dir(tiny_lora(tmp_path / "other", seed=2)), TONE)
    with pytest.raises(PermissionDenied, match="push"):
        eva.uploads.open(AdapterName.parse("acme/voice"), Digest.of(b"x"), 1)


def test_a_restored_backup_has_the_evidence_and_its_files(registry: LocalRegistry, tmp_path: Path) -> None:
    create(registry, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored")
    restored = open_local(tmp_path / "restored")
    assert restored.evidence.list(Ref(TONE)) == registry.evidence.list(Ref(TONE))
    assert files_of(restored) == {RESULTS, SAMPLES}
    assert verify(restored.catalog, restored.blobs) == ()


@pytest.mark.parametrize(
    "change",
    [
        "value = 0.99",
        "stderr = 0.5",
        "n = 7",
        "task_hash = NULL",
        "withdrawn_reason = NULL",
        "withdrawn_reason = 'another'",
        "samples_digest = NULL",
        "direction = 'best'",
    ],
)
def test_a_changed_value_or_withdrawal_is_found(registry: LocalRegistry, change: str) -> None:
    strict = registry.evidence.list(Ref(TONE), task="gsm8k").items[0]
    registry.evidence.withdraw(strict.id, WithdrawalRequest(reason="for a test"))
    assert verify(registry.catalog, registry.blobs) == ()
    with closing(sqlite3.connect(registry.context.folder / "catalog.sqlite")) as database, database:
        database.execute(f"UPDATE metric_values SET {change} WHERE id = {strict.id}")
    assert verify(registry.catalog, registry.blobs)


def test_a_mirror_copies_evidence_with_its_files_and_withdrawals(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    strict = registry.evidence.list(Ref(TONE), task="gsm8k").items[0]
    registry.evidence.withdraw(strict.id, WithdrawalRequest(reason="for a test"))
    mirror = open_local(tmp_path / "mirror")
    sync_once(registry, mirror, MirrorSelection())
    loss, copy, accuracy = mirror.evidence.list(Ref(TONE)).items
    own = {"id", "at", "withdrawn"}
    assert copy.model_dump(exclude=own) == strict.model_dump(exclude=own)
    assert (loss.withdrawn, accuracy.file) == (None, None)
    assert copy.withdrawn is not None and copy.withdrawn.reason == "for a test"
    assert files_of(mirror) == {RESULTS, SAMPLES}
    assert not copy_evidence(registry, mirror, registry.versions.get(Ref(TONE)))
    assert verify(mirror.catalog, mirror.blobs) == ()


def test_a_damaged_file_of_evidence_is_repaired_from_a_copy(registry: LocalRegistry, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "results.json").write_bytes(RESULTS)
    damaged = next(path for path in registry.context.folder.rglob(Digest.of(RESULTS).hex))
    damaged.chmod(0o600)
    damaged.write_bytes(b"x" * len(RESULTS))
    result = repair_registry(registry, sources=(str(tmp_path / "copy"),), read_bytes=True)
    assert result.left == ()
    assert files_of(registry) == {RESULTS, SAMPLES}


def test_metrics_logged_before_evidence_existed_are_evidence(registry: LocalRegistry) -> None:
    folder = registry.context.folder
    registry.close()
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as database, database:
        database.execute("DELETE FROM metric_values WHERE file_digest IS NOT NULL")
        back_to_0018(database)
    upgraded = open_local(folder)
    (logged,) = upgraded.evidence.list(Ref(TONE)).items
    assert (logged.metric, logged.value, logged.by, logged.file) == ("accuracy", 0.9, "local", None)
    assert add_results(upgraded).added == 2
