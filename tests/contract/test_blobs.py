"""The blob stores' contract, kept in memory and in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.blobs import BlobStore
from adaptry.blobs.local import LocalBlobs
from adaptry.blobs.memory import MemoryBlobs
from adaptry.testing.blob_contract import BlobContract


class TestInMemory(BlobContract):
    @pytest.fixture
    def blobs(self) -> BlobStore:
        return MemoryBlobs()


class TestInFiles(BlobContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return LocalBlobs(tmp_path / "blobs")
