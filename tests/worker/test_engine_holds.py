"""Files that an engine may read again stay in the cache, whichever process evicts and however the worker
ended.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.core.errors import StorageFull, Withdrawn
from adaptry.integrations.serving import Cache
from adaptry.integrations.serving.cache import engine_holds
from adaptry.integrations.serving.cache.engine_holds import EngineAddress
from adaptry.registry.records import VersionInfo
from adaptry.storage.local import LocalRegistry

Publish = Callable[..., VersionInfo]
VLLM = EngineAddress("vllm", "http://127.0.0.1:8000")
OTHER = EngineAddress("vllm", "http://127.0.0.1:8001")
LLAMACPP = EngineAddress("llama.cpp", "http://127.0.0.1:8080", reads_at_start=True)


def given(registry: LocalRegistry, root: Path, ref: str, *engines: EngineAddress) -> VersionInfo:
    """The version that a worker gave to the engines before it ended."""
    with_worker = Cache(root)
    kept = with_worker.acquire(registry, ref)
    for engine in engines:
        with_worker.hold(kept.digest, engine, "acme/tone@prod")
    with_worker.close()
    return kept.version


def test_versions_held_by_an_engine_stay_until_released(
    registry: LocalRegistry, tmp_path: Path, publish: Publish
) -> None:
    publish()
    version = given(registry, tmp_path / "cache", "acme/tone", VLLM, OTHER)
    cache = Cache(tmp_path / "cache")
    assert cache.shrink(0) == ()

    cache.release_hold(version.digest, VLLM)
    assert cache.shrink(0) == ()
    assert [hold.url for hold in cache.holds(version.digest)] == [OTHER.url]
    cache.release_hold(version.digest, OTHER)
    assert [entry.digest for entry in cache.shrink(0)] == [version.digest]
    assert list((tmp_path / "cache").glob(".*.held")) == []


def test_a_full_cache_refuses_and_names_the_engines_with_holds(
    registry: LocalRegistry, tmp_path: Path, publish: Publish
) -> None:
    first, _ = publish(1), publish(2)
    given(registry, tmp_path / "cache", "acme/tone@1", VLLM)
    cache = Cache(tmp_path / "cache", size=first.size + 10)

    with pytest.raises(StorageFull) as refused:
        cache.acquire(registry, "acme/tone@2")
    for said in ("vllm at http://127.0.0.1:8000", "acme/tone@1", f"{first.size:,} bytes", "--engine-gone"):
        assert said in str(refused.value)
    assert cache.has_files(first.digest)

    assert cache.forget_engine(VLLM.url) == (first.digest,)
    cache.acquire(registry, "acme/tone@2")
    assert not cache.has_files(first.digest)


def test_a_recall_refuses_immediately_and_deletes_after_the_last_use(
    registry: LocalRegistry, tmp_path: Path, publish: Publish
) -> None:
    publish()
    version = given(registry, tmp_path / "cache", "acme/tone", VLLM)
    loading, cache = Cache(tmp_path / "cache"), Cache(tmp_path / "cache")
    loading.acquire(registry, "acme/tone")

    assert not cache.recall(version.digest, "it leaks")
    assert cache.has_files(version.digest)
    assert cache.acquire_local(version.digest) is None
    with pytest.raises(Withdrawn, match="it leaks"):
        cache.acquire(registry, "acme/tone")

    cache.release_hold(version.digest, VLLM)
    assert cache.has_files(version.digest), "a process reads them still"
    loading.close()
    assert not cache.has_files(version.digest)


def test_recalled_files_of_a_killed_process_are_removed_by_the_next_cleaning(
    registry: LocalRegistry, tmp_path: Path, publish: Publish
) -> None:
    version, other = publish(1), publish(2)
    cache = Cache(tmp_path / "cache", size=10 * version.size)
    dying = Cache(tmp_path / "cache")
    dying.acquire(registry, "acme/tone@1")
    assert not cache.recall(version.digest, "it leaks")
    dying._leases.release_all()  # as the kernel does

    cache.acquire(registry, "acme/tone@2")
    assert not cache.has_files(version.digest)
    assert cache.has_files(other.digest)


def test_a_hold_survives_a_worker_that_is_killed_and_damage_to_its_file(
    registry: LocalRegistry, tmp_path: Path, publish: Publish
) -> None:
    version = publish()
    root = tmp_path / "cache"
    given(registry, root, "acme/tone")
    program = (
        "import os, sys\n"
        "from adaptry.core.digest import Digest\n"
        "from adaptry.integrations.serving import Cache\n"
        "from adaptry.integrations.serving.cache.engine_holds import EngineAddress\n"
        "cache = Cache(sys.argv[1])\n"
        "cache.acquire_local(Digest(sys.argv[2]))\n"
        "cache.hold(Digest(sys.argv[2]), EngineAddress('vllm', 'http://127.0.0.1:8000'), 'acme/tone@prod')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(root), version.digest.hex], check=False)
    assert killed.returncode == -9
    cache = Cache(root)
    assert cache.shrink(0) == ()
    assert set(cache.holds_of(VLLM)) == {version.digest}

    (file,) = next(root.glob(".*.held")).iterdir()
    file.write_text("{")
    assert cache.shrink(0) == (), "in doubt it stays"
    assert cache.forget_engine(file.name) == (version.digest,)
    assert len(cache.shrink(0)) == 1


def test_after_a_reboot_only_engines_that_start_from_files_keep_their_holds(
    registry: LocalRegistry, tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(1), publish(2)
    first = given(registry, tmp_path / "cache", "acme/tone@1", VLLM)
    second = given(registry, tmp_path / "cache", "acme/tone@2", LLAMACPP)
    (tmp_path / "boot_id").write_text("another boot\n")
    monkeypatch.setattr(engine_holds, "_BOOT_ID", tmp_path / "boot_id")

    cache = Cache(tmp_path / "cache")
    assert [entry.digest for entry in cache.shrink(0)] == [first.digest]
    assert cache.has_files(second.digest)


def test_an_address_of_this_machine_counts_for_this_host_only(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [EngineAddress("vllm", url) for url in ("http://localhost:8000", "http://vllm.svc:8000")]
    before = [address.key for address in addresses]
    monkeypatch.setattr(engine_holds.socket, "gethostname", lambda: "another-pod")
    after = [address.key for address in addresses]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_an_engine_of_another_host_is_forgotten_by_its_host_only(
    registry: LocalRegistry, tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers share a cache, and each calls its engine localhost."""
    publish()
    monkeypatch.setattr(engine_holds.socket, "gethostname", lambda: "pod-1")
    version = given(registry, tmp_path / "cache", "acme/tone", VLLM)
    monkeypatch.setattr(engine_holds.socket, "gethostname", lambda: "pod-2")
    cache = Cache(tmp_path / "cache")
    assert cache.forget_engine(VLLM.url) == ()
    assert cache.shrink(0) == ()
    (user,) = cache.users()
    assert f"--engine-gone '{VLLM.url} on pod-1'" in user.sentence()
    assert cache.forget_engine(f"{VLLM.url} on pod-1") == (version.digest,)
