"""A registry's server, a model that it knows, and a vLLM that serves the model with our resolver: one of each
for all modules, since vLLM takes minutes to start on a busy machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import VersionInfo
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server
from adaptry_api.testing import running_server as serving_registry

from . import models, vllm_server

pytest.importorskip("peft", reason="PEFT is the reference here: pip install 'adaptry[demo]'")


@dataclass(frozen=True)
class Place:
    """Folders, addresses and tokens of the scene. `made`: the adapters' folders, by digest."""

    folder: Path
    server: Server
    registry: HttpRegistry
    base: Path
    made: dict[str, Path]

    def publish(self, name: str, seed: int = 1, **options: object) -> VersionInfo:
        folder = models.adapter(
            self.folder / f"{name.replace('/', '-')}-{len(self.made)}", seed=seed, **options
        )
        version = push(self.registry, open_dir(folder), name).version
        self.made[version.digest.brief] = folder
        return version

    def trained(self, version: VersionInfo) -> list[float]:
        """PEFT's output: the logprobs of the tokens that it chooses."""
        return models.said(self.base, self.made[version.digest.brief])


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    base = models.model(folder / "base")
    with serving_registry(ServerSettings(data=folder / "data")) as server:
        registry = server.registry()
        base_registry.register_base(
            registry, open_checkpoint(base), ("org/tiny",), visibility="internal", cache=folder / "bases"
        )
        yield Place(folder, server, registry, base, {})


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree's wheel, as vLLM's Python finds it."""
    return vllm_server.installed(vllm_server.PYTHON.python, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def env(site: Path, place: Place) -> dict[str, str]:
    """The environment of a worker, which may only read and report."""
    return vllm_server.environment(
        site,
        place.folder / "home",
        ADAPTRY_URL=place.server.url,
        ADAPTRY_TOKEN=place.server.token("gpu-1", "worker", ("acme",)),
        ADAPTRY_CACHE=str(place.folder / "cache"),
        ADAPTRY_WATCH_SECONDS="0.1",
        VLLM_ALLOW_RUNTIME_LORA_UPDATING="True",
    )


@pytest.fixture(scope="session")
def vllm(place: Place, env: dict[str, str]) -> Iterator[vllm_server.Vllm]:
    log = place.folder / "vllm.log"
    with vllm_server.serving(vllm_server.PYTHON.python, place.base, env, log) as server:
        yield server
    sys.stdout.write(log.read_text()[-20_000:])
