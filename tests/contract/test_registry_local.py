"""The registry's contract, met by the local registry: in memory, in a folder, and with PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.contract.fixtures import MakeRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.registry_contract import RegistryContract


class TestInMemory(RegistryContract):
    @pytest.fixture
    def make_registry(self) -> MakeRegistry:
        return LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs())).on_behalf_of


class TestInFiles(RegistryContract):
    @pytest.fixture
    def make_registry(self, tmp_path: Path) -> MakeRegistry:
        return open_local(tmp_path / "registry").on_behalf_of


class TestOnPostgres(RegistryContract):
    """The catalog is in a database of a real server, and the blobs are in memory."""

    @pytest.fixture
    def make_registry(self, postgres: PostgresServer) -> Iterator[MakeRegistry]:
        with postgres.temporary_database() as url:
            registry = LocalRegistry(RegistryContext(Catalog(url), MemoryBlobs()))
            yield registry.on_behalf_of
            registry.close()
