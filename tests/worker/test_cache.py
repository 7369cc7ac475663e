"""A worker's cache: complete or absent versions, verified, shared by processes, evicted by size, and
recalled.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adaptry.core.digest import Digest
from adaptry.core.errors import DigestMismatch, NotFound, StorageFull, Unavailable, Withdrawn
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.cache.download import CacheFill
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.files import LocalFiles
from adaptry.testing.flaky_registry import FlakyRegistry, TamperingRegistry

Publish = Callable[..., VersionInfo]
Start = Callable[[str, str], "subprocess.Popen[str]"]
WEIGHTS = "adapter_model.safetensors"
TONE = AdapterName.parse("acme/tone")


@dataclass(frozen=True)
class DeadFiles(LocalFiles):
    """Yields one chunk of a file, once, and no further chunks."""

    given: list[bool] = field(default_factory=list)

    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        for chunk in super().read(name, revision, path, start):
            if self.given:
                raise Unavailable("no route")
            self.given.append(True)
            yield chunk


def said(process: subprocess.Popen[str]) -> str:
    """The next line of the process's output."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> str:
    """Ends the process's input; returns the rest of its output."""
    return process.communicate()[0].strip()


def digests(cache: Cache) -> set[Digest]:
    return {entry.digest for entry in cache.entries()}


def test_a_cached_adapter_is_in_a_folder_named_by_its_digest(
    registry: LocalRegistry, cache: Cache, publish: Publish
) -> None:
    version = publish()

    kept = cache.acquire(registry, "acme/tone")

    assert (kept.digest, kept.version) == (version.digest, version)
    assert version.digest.hex in str(kept.path)
    assert sorted(path.name for path in kept.path.iterdir()) == ["adapter_config.json", WEIGHTS]
    manifest = registry.versions.detail(Ref.parse("acme/tone")).manifest
    assert all(Digest.of((kept.path / file.path).read_bytes()) == file.sha256 for file in manifest.files)


def test_a_cached_version_is_not_fetched_again(
    registry: LocalRegistry, cache: Cache, publish: Publish
) -> None:
    publish()
    counting = FlakyRegistry(registry.context)
    first = cache.acquire(counting, "acme/tone@1")
    fetched = counting.sent

    assert cache.acquire(counting, "acme/tone").path == first.path
    assert Cache(cache.root).acquire(counting, "acme/tone").path == first.path
    assert counting.sent == fetched
    assert registry.adapters.get(TONE).downloads == 1


def test_an_alias_is_looked_up_every_time(registry: LocalRegistry, cache: Cache, publish: Publish) -> None:
    first, second = publish(seed=1), publish(seed=2)
    set_at = registry.aliases.move(TONE, "prod", first.digest, None)
    assert cache.acquire(registry, "acme/tone@prod").digest == first.digest

    registry.aliases.move(TONE, "prod", second.digest, set_at.generation)

    moved = cache.acquire(registry, "acme/tone@prod")
    assert moved.digest == second.digest
    assert digests(cache) == {first.digest, second.digest}


def test_processes_at_once_fetch_it_once(
    registry: LocalRegistry, cache: Cache, large: VersionInfo, start: Start
) -> None:
    first = start("acme/large", "stall")
    assert said(first) == "stalled"
    others = [start("acme/large", "hold") for _ in range(2)]
    found: list[Path] = []
    here = threading.Thread(target=lambda: found.append(cache.acquire(registry, "acme/large").path))
    here.start()
    assert not found

    path = go_on(first)

    here.join(timeout=60)
    assert [str(found[0]), *(said(other) for other in others)] == [path] * 3
    assert registry.adapters.get(AdapterName.parse("acme/large")).downloads == 1


def test_a_killed_fetch_is_resumed(
    registry: LocalRegistry, cache: Cache, large: VersionInfo, start: Start
) -> None:
    dying = start("acme/large", "stall")
    assert said(dying) == "stalled"
    dying.kill()
    dying.wait()
    assert [entry.is_partial for entry in cache.entries()] == [True]
    counting = FlakyRegistry(registry.context)

    kept = cache.acquire(counting, "acme/large")

    assert 0 < counting.sent < large.size
    assert Digest.of((kept.path / WEIGHTS).read_bytes()) == weights_of(registry, "acme/large")
    assert [entry.is_partial for entry in cache.entries()] == [False]


def test_damaged_bytes_of_a_killed_fetch_are_fetched_again(
    registry: LocalRegistry, cache: Cache, large: VersionInfo, start: Start
) -> None:
    dying = start("acme/large", "stall")
    assert said(dying) == "stalled"
    dying.kill()
    dying.wait()
    (left,) = cache.root.glob(f".*/adapter/{WEIGHTS}")
    left.write_bytes(b"\0" * left.stat().st_size)

    kept = cache.acquire(registry, "acme/large")

    assert Digest.of((kept.path / WEIGHTS).read_bytes()) == weights_of(registry, "acme/large")


def test_a_broken_fetch_keeps_its_bytes_and_serves_nothing(
    registry: LocalRegistry, cache: Cache, large: VersionInfo
) -> None:
    dead = LocalRegistry(registry.context)
    dead.files = DeadFiles(registry.context)
    with pytest.raises(Unavailable):
        cache.acquire(dead, "acme/large")
    assert cache.acquire_local(large.digest) is None

    assert cache.acquire(registry, "acme/large").path.is_dir()


def test_bytes_that_changed_on_the_way_are_not_kept(
    registry: LocalRegistry, cache: Cache, publish: Publish
) -> None:
    publish()
    tampering = TamperingRegistry(registry.context)
    tampering.tamper = lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:]

    with pytest.raises(DigestMismatch):
        cache.acquire(tampering, "acme/tone")

    assert cache.entries() == ()
    assert cache.acquire(registry, "acme/tone").path.is_dir()


@pytest.mark.parametrize("tamper", ["change", "add", "remove", "link"])
def test_a_folder_that_was_tampered_with_is_fetched_again(
    registry: LocalRegistry, cache: Cache, publish: Publish, tamper: str, tmp_path: Path
) -> None:
    publish()
    kept = cache.acquire(registry, "acme/tone")
    weights = kept.path / WEIGHTS
    was = weights.read_bytes()
    match tamper:
        case "change":
            weights.write_bytes(was[:-1] + bytes([was[-1] ^ 1]))
        case "add":
            (kept.path / "adapter_model.bin").write_bytes(b"a pickle that an engine may prefer")
        case "remove":
            weights.unlink()
        case "link":
            weights.rename(tmp_path / "elsewhere")
            weights.symlink_to(tmp_path / "elsewhere")

    assert cache.acquire_local(kept.digest) is None
    again = cache.acquire(registry, "acme/tone")

    assert sorted(path.name for path in again.path.iterdir()) == ["adapter_config.json", WEIGHTS]
    assert (again.path / WEIGHTS).read_bytes() == was
    assert not (again.path / WEIGHTS).is_symlink()


def test_a_folder_with_an_older_time_is_verified_and_not_fetched(
    registry: LocalRegistry, cache: Cache, publish: Publish
) -> None:
    publish()
    counting = FlakyRegistry(registry.context)
    kept = cache.acquire(counting, "acme/tone")
    fetched = counting.sent
    (kept.path / WEIGHTS).touch()

    cache.acquire(counting, "acme/tone")

    assert counting.sent == fetched


def test_the_least_recently_used_entries_are_evicted(
    registry: LocalRegistry, tmp_path: Path, publish: Publish
) -> None:
    versions = [publish(seed=seed) for seed in (1, 2, 3)]
    cache = Cache(tmp_path / "cache", size=2 * versions[0].size + 10)
    for number in (1, 2):
        cache.acquire(registry, f"acme/tone@{number}")
    cache.close()
    cache.acquire(registry, "acme/tone@1")
    cache.close()

    cache.acquire(registry, "acme/tone@3")

    assert digests(cache) == {versions[0].digest, versions[2].digest}


def test_entries_in_use_by_a_living_process_are_not_evicted(
    registry: LocalRegistry, tmp_path: Path, publish: Publish, start: Start
) -> None:
    one, two = publish(seed=1), publish(seed=2)
    other = start("acme/tone@1", "hold")
    assert said(other)
    cache = Cache(tmp_path / "cache", size=one.size + 10)

    with pytest.raises(StorageFull, match="in use"):
        cache.acquire(registry, "acme/tone@2")
    assert cache.is_leased(one.digest)
    assert cache.shrink(0) == ()

    go_on(other)
    cache.acquire(registry, "acme/tone@2")

    assert digests(cache) == {two.digest}
    assert not cache.is_leased(one.digest)


def test_a_version_larger_than_the_cache_is_refused_without_evictions(
    registry: LocalRegistry, tmp_path: Path, publish: Publish, large: VersionInfo
) -> None:
    small = publish()
    cache = Cache(tmp_path / "cache", size=small.size + 10)
    cache.acquire(registry, "acme/tone")
    cache.close()

    with pytest.raises(StorageFull, match="ADAPTRY_CACHE_SIZE"):
        cache.acquire(registry, "acme/large")

    assert digests(cache) == {small.digest}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 14 MiB, if this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_reported_and_only_unused_entries_are_evicted(
    registry: LocalRegistry, small_disk: Path, publish: Publish, large: VersionInfo
) -> None:
    idle, used = publish(seed=1), publish(seed=2)
    cache = Cache(small_disk / "cache")
    cache.acquire(registry, "acme/tone@1")
    cache.close()
    cache.acquire(registry, "acme/tone@2")
    (small_disk / "ballast").write_bytes(b"x" * (4 << 20))

    with pytest.raises(StorageFull, match="no space left"):
        cache.acquire(registry, "acme/large")
    assert digests(cache) == {used.digest}
    assert idle.digest not in digests(cache)

    (small_disk / "ballast").unlink()
    assert cache.acquire(registry, "acme/large").path.is_dir()


def test_a_withdrawn_version_is_refused_even_if_cached(
    registry: LocalRegistry, cache: Cache, publish: Publish
) -> None:
    publish()
    cache.acquire(registry, "acme/tone@1")
    change_state(registry, Ref.parse("acme/tone@1"), StateChange(state="revoked", reason="it leaks"))

    with pytest.raises(Withdrawn, match="it leaks"):
        cache.acquire(registry, "acme/tone@1")


def test_a_recalled_version_is_removed_and_refused_until_unblocked(
    registry: LocalRegistry, cache: Cache, publish: Publish
) -> None:
    version = publish()
    kept = cache.acquire(registry, "acme/tone")

    assert cache.recall(version.digest, "it leaks addresses")

    assert not kept.path.exists()
    for one in (cache, Cache(cache.root)):
        assert one.acquire_local(version.digest) is None
        with pytest.raises(Withdrawn, match="it leaks addresses"):
            one.acquire(registry, "acme/tone")
    cache.unblock(version.digest)
    assert cache.acquire(registry, "acme/tone").path.is_dir()


def test_a_recalled_version_that_is_not_cached_is_refused(
    registry: LocalRegistry, cache: Cache, publish: Publish
) -> None:
    version = publish()

    assert not cache.recall(version.digest, "heard of it early")

    with pytest.raises(Withdrawn):
        cache.acquire(registry, "acme/tone")


def test_a_recall_stops_a_fetch_that_is_under_way(cache: Cache, large: VersionInfo, start: Start) -> None:
    fetching = start("acme/large", "stall")
    assert said(fetching) == "stalled"

    cache.recall(large.digest, "recalled meanwhile")
    go_on(fetching)

    assert fetching.returncode != 0
    assert cache.entries() == ()


def test_a_recall_between_a_fetch_and_its_lease_removes_what_was_fetched(
    registry: LocalRegistry, cache: Cache, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish()
    fetch = CacheFill.ensure_present

    def fetch_then_recall(fill: CacheFill) -> bool:
        was_fetched = fetch(fill)
        Cache(cache.root).recall(version.digest, "it leaks")
        return was_fetched

    monkeypatch.setattr(CacheFill, "ensure_present", fetch_then_recall)
    with pytest.raises(Withdrawn, match="it leaks"):
        cache.acquire(registry, "acme/tone@1")
    assert not cache.has_files(version.digest)
    assert digests(cache) == set()


def test_an_unknown_version_is_not_found_and_leaves_nothing(registry: LocalRegistry, cache: Cache) -> None:
    with pytest.raises(NotFound):
        cache.acquire(registry, "acme/nothing")

    assert cache.entries() == ()


def test_many_threads_of_one_process_fetch_it_once(
    registry: LocalRegistry, cache: Cache, large: VersionInfo
) -> None:
    counting = FlakyRegistry(registry.context)
    threads = [threading.Thread(target=cache.acquire, args=(counting, "acme/large")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert counting.sent == large.size
    assert cache.is_leased(large.digest)
    cache.release(large.digest)
    assert not cache.is_leased(large.digest)


def test_partly_removed_entries_are_swept(registry: LocalRegistry, cache: Cache, publish: Publish) -> None:
    publish()
    cache.acquire(registry, "acme/tone")
    (cache.root / ".0123456789abcdef.gone" / "adapter").mkdir(parents=True)
    (cache.root / f".{'0' * 64}.part").mkdir()
    (cache.root / ("1" * 64) / "adapter").mkdir(parents=True)

    cache.close()
    assert len(cache.shrink(0)) == 1

    assert {path.name for path in cache.root.iterdir()} == {".room"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_cache_is_reported(registry: LocalRegistry, tmp_path: Path, publish: Publish) -> None:
    publish()
    (tmp_path / "cache").mkdir(mode=0o500)

    with pytest.raises(Unavailable, match="cannot write"):
        Cache(tmp_path / "cache").acquire(registry, "acme/tone")


def test_a_file_at_the_caches_path_is_reported(
    registry: LocalRegistry, tmp_path: Path, publish: Publish
) -> None:
    publish()
    (tmp_path / "file").touch()

    with pytest.raises(Unavailable, match="cannot write"):
        Cache(tmp_path / "file" / "cache").acquire(registry, "acme/tone")


def weights_of(registry: LocalRegistry, ref: str) -> Digest:
    entry = registry.versions.detail(Ref.parse(ref)).manifest.file(WEIGHTS)
    assert entry is not None
    return entry.sha256


def test_a_recall_removes_the_files_even_if_it_cannot_be_recorded(
    registry: LocalRegistry, cache: Cache, publish: Callable[..., VersionInfo]
) -> None:
    version = publish()
    kept = cache.acquire(registry, "acme/tone")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(Unavailable, match="cannot write"):
            cache.recall(version.digest, "it leaks")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not kept.path.exists()
    assert cache.recall_reason(version.digest) is None
    cache.recall(version.digest, "it leaks")
    assert "it leaks" in (cache.recall_reason(version.digest) or "")
