"""Pairs of registries: embedded ones, and servers over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.registry.interface import Registry
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora, write_safetensors
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

MakeLora = Callable[..., Adapter]


@pytest.fixture
def lora(tmp_path: Path) -> MakeLora:
    """Makes adapters; those of different seeds differ."""
    return lambda seed=1, **options: open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed, **options))


@pytest.fixture
def large(tmp_path: Path) -> MakeLora:
    """Makes adapters of a few MiB, so that their weights are sent in several chunks."""

    def make(seed: int) -> Adapter:
        made = tiny_lora(tmp_path / f"large-{seed}", seed=seed)
        module = "base_model.model.model.layers.0.self_attn.q_proj"
        values = bytes([seed, *range(1, 64)]) * (2 << 13)  # no byte that would make a NaN
        tensors = {
            f"{module}.lora_A.weight": ("F32", (4, 1 << 16), values),
            f"{module}.lora_B.weight": ("F32", (1 << 16, 4), values),
        }
        write_safetensors(made / "adapter_model.safetensors", tensors)
        return open_dir(made)

    return make


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LocalRegistry]:
    """The mirrored registry, as opened on its own machine."""
    opened = open_local(tmp_path / "source")
    yield opened
    opened.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[LocalRegistry]:
    """The mirroring registry, as opened on its own machine."""
    opened = open_local(tmp_path / "target")
    yield opened
    opened.close()


@pytest.fixture(params=["embedded", pytest.param("http", marks=pytest.mark.heavy)])
def pair(
    request: pytest.FixtureRequest, source: LocalRegistry, target: LocalRegistry
) -> tuple[Registry, Registry]:
    """Both as a mirror opens them: in folders, and in slow tests also as servers."""
    if request.param == "http":
        served: tuple[Registry, Registry] = request.getfixturevalue("served")
        return served
    return source, target


@pytest.fixture
def served(
    source: LocalRegistry, target: LocalRegistry, tmp_path: Path
) -> Iterator[tuple[Registry, Registry]]:
    """Both as servers."""
    here, there = ServerSettings(data=tmp_path / "source"), ServerSettings(data=tmp_path / "target")
    with running_server(here) as one, running_server(there) as other:
        yield one.registry(), other.registry()
