"""The embedded registry: its location, cleanup and limits, and what `verify` finds in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import Busy, CheckFailed, NotFound, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.settings import AdaptrySettings
from adaptry.operations.transfer import push
from adaptry.storage.blobs import StagedBlob
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.connect import connect, open_local
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.local.quotas import MAX_OPEN_UPLOADS
from adaptry.storage.local.stale_uploads import purge
from adaptry.storage.maintenance.integrity import verify

TONE = AdapterName.parse("acme/tone")
DATA = b"x" * 1000
DIGEST = Digest.of(DATA)


def test_the_default_registry_is_in_the_users_folder(home: Path, loras: Callable[[int], list[Path]]) -> None:
    push(connect(), open_dir(loras(1)[0]), TONE)
    assert (home / "catalog.sqlite").exists()
    assert connect(str(home)).versions.get(Ref(TONE)).number == 1
    assert connect(settings=AdaptrySettings(registry=str(home))).adapters.get(TONE).versions == 1


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="choose another folder"):
        open_local(tmp_path / "file")


def test_the_first_upload_removes_stagings_of_dead_processes_only(folder: Path) -> None:
    registry = open_local(folder)
    blobs = registry.blobs
    session = registry.uploads.open(TONE, DIGEST, len(DATA))
    registry.uploads.append(session, 0, [DATA[:10]])
    dead, living = blobs.new_key(), blobs.new_key()
    with blobs.staging(dead) as staged:
        staged.append(0, [DATA])
    with LocalBlobs(folder / "blobs").staging(living) as staged:
        staged.append(0, [DATA])
        again = open_local(folder)
        assert set(blobs.stagings()) == {session.id, dead, living}, "who only looks does not tidy up"
        assert again.uploads.open(TONE, DIGEST, len(DATA)).offset == 10
        assert set(blobs.stagings()) == {session.id, living}


def test_a_session_idle_for_a_day_is_dropped() -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs(), clock=lambda: now[0]))
    session = registry.uploads.open(TONE, DIGEST, len(DATA))
    session = registry.uploads.append(session, 0, [DATA[:10]])
    assert purge(registry.catalog, registry.blobs, now[0] + timedelta(hours=23)) == 0
    assert purge(registry.catalog, registry.blobs, now[0] + timedelta(hours=25)) == 1
    with pytest.raises(NotFound, match="idle for too long"):
        registry.uploads.append(session, 10, [DATA[10:]])


def test_two_concurrent_finishes_of_an_upload_both_succeed() -> None:
    class Late(MemoryBlobs):
        """Another process finishes the upload after the session was read and before its bytes are locked."""

        other: Callable[[], None] | None = None

        def staging(self, key: str) -> AbstractContextManager[StagedBlob]:
            other, self.other = self.other, None
            if other:
                other()
            return super().staging(key)

    blobs = Late()
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), blobs))
    upload = registry.uploads.append(registry.uploads.open(TONE, DIGEST, len(DATA)), 0, [DATA])
    blobs.other = lambda: registry.uploads.finish(upload)
    registry.uploads.finish(upload)
    assert registry.files.has(TONE, DIGEST)


def test_one_namespace_cannot_open_uploads_without_end() -> None:
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs()))
    for number in range(MAX_OPEN_UPLOADS):
        registry.uploads.open(TONE, Digest.of(bytes([number])), 1)
    with pytest.raises(Busy, match="64 uploads are open in acme already"):
        registry.uploads.open(TONE, DIGEST, len(DATA))
    registry.uploads.open(AdapterName.parse("other/tone"), DIGEST, len(DATA))


def test_with_known_bases_required_a_push_on_another_is_refused(
    folder: Path, loras: Callable[[int], list[Path]]
) -> None:
    registry = open_local(folder, require_known_base=True)
    with pytest.raises(CheckFailed, match="org/tiny is not; register it first"):
        push(registry, open_dir(loras(1)[0]), TONE)


def test_a_sound_registry_verifies(folder: Path, loras: Callable[[int], list[Path]]) -> None:
    registry = open_local(folder)
    for lora in loras(3):
        push(registry, open_dir(lora), TONE)
    assert verify(registry.catalog, registry.blobs) == ()


def test_changed_and_missing_bytes_are_found_and_named(
    folder: Path, loras: Callable[[int], list[Path]]
) -> None:
    registry = open_local(folder)
    push(registry, open_dir(loras(1)[0]), TONE)
    assert isinstance(registry.blobs, LocalBlobs)
    config, weights = (entry.sha256 for entry in registry.versions.detail(Ref(TONE)).manifest.files)
    path = registry.blobs.path_of(weights)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    registry.blobs.delete(config)
    quick = verify(registry.catalog, registry.blobs, read_bytes=False)
    assert len(quick) == 1
    problems = verify(registry.catalog, registry.blobs)
    assert {problem.reason.split(";")[0] for problem in problems} == {
        "its bytes have changed since they were stored",
        "its bytes are lost",
    }
    assert all("acme/tone" in problem.where for problem in problems)
    known = verify(registry.catalog, registry.blobs, read_bytes=False)
    assert len(known) == 2, "what was found by reading stays known until it is repaired"
