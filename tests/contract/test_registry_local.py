"""The registry's contract, kept by the local one: in memory, and in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.blobs.memory import MemoryBlobs
from adaptry.catalog.database import Catalog
from adaptry.local import LocalRegistry
from adaptry.opening import open_local
from adaptry.testing.promises.ground import MakeRegistry
from adaptry.testing.registry_contract import RegistryContract


class TestInMemory(RegistryContract):
    @pytest.fixture
    def make_registry(self) -> MakeRegistry:
        return LocalRegistry(Catalog("sqlite://"), MemoryBlobs()).on_behalf_of


class TestInFiles(RegistryContract):
    @pytest.fixture
    def make_registry(self, tmp_path: Path) -> MakeRegistry:
        return open_local(tmp_path / "registry").on_behalf_of
