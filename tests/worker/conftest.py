"""A registry with an adapter, and a cache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.integrations.serving import Cache
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.registry.records import VersionInfo
from adaptry.storage.local import LocalRegistry
from adaptry.testing.flaky_registry import NO_WAIT
from adaptry.testing.samples import large_lora, tiny_base, tiny_lora
from adaptry.testing.warm_python import WarmPython

from .bench import Bench, Flapping

Publish = Callable[..., VersionInfo]
"""`publish(seed=1)`: a version of acme/tone, another one for each seed."""
Start = Callable[[str, str], "subprocess.Popen[str]"]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache", retry=NO_WAIT)
    yield made
    made.close()


@pytest.fixture
def publish(registry: LocalRegistry, tmp_path: Path) -> Publish:
    def publish(seed: int = 1, name: str = "acme/tone", hidden: int = 16) -> VersionInfo:
        folder = tiny_lora(tmp_path / f"out-{seed}-{hidden}", seed=seed, hidden=hidden)
        return push(registry, open_dir(folder), name).version

    return publish


@pytest.fixture
def large(registry: LocalRegistry, tmp_path: Path) -> VersionInfo:
    """A version whose weights are sent in several chunks."""
    return push(registry, open_dir(large_lora(tmp_path / "large")), "acme/large").version


@pytest.fixture
def start(registry: LocalRegistry, cache: Cache, tmp_path: Path) -> Iterator[Start]:
    """Starts processes that fetch into the same cache (`cache_process.py`), and ends them after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(ref: str, how: str) -> subprocess.Popen[str]:
        program = [sys.executable, str(Path(__file__).with_name("cache_process.py"))]
        arguments = [str(tmp_path / "registry"), str(cache.root), ref, how]
        process = WarmPython([*program, *arguments], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def base(tmp_path: Path, registry: LocalRegistry) -> Path:
    folder = tiny_base(tmp_path / "base")
    base_registry.register_base(registry, open_checkpoint(folder), ("org/tiny",), cache=tmp_path / "bases")
    return folder


@pytest.fixture
def bench(registry: LocalRegistry, base: Path, cache: Cache) -> Bench:
    return Bench(Flapping(registry.context), base, cache)
