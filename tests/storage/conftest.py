"""The registries of tests, and processes that push to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora
from adaptry.testing.warm_python import WarmPython

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def name(postgres: PostgresServer) -> str:
    """The name of a PostgreSQL database with an empty catalog."""
    return postgres.create_migrated()


@pytest.fixture
def on_postgres(postgres: PostgresServer, name: str) -> Iterator[LocalRegistry]:
    """An empty registry with its catalog in that database, and files in memory."""
    registry = LocalRegistry(RegistryContext(Catalog(postgres.url(name)), MemoryBlobs()))
    yield registry
    registry.close()


@pytest.fixture
def loras(tmp_path: Path) -> Callable[[int], list[Path]]:
    """Makes that many different adapters."""
    return lambda count: [tiny_lora(tmp_path / f"lora-{seed}", seed=seed) for seed in range(count)]


@pytest.fixture
def start(folder: Path) -> Start:
    """Starts a process that pushes folders to the test's registry under a name, or another script of this
    folder.
    """

    def begin(
        name: str, folders: list[Path], script_name: str = "push_process.py", **environment: str
    ) -> subprocess.Popen[str]:
        script = Path(__file__).with_name(script_name)
        return WarmPython(
            [sys.executable, str(script), str(folder), name, *map(str, folders)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    return begin
