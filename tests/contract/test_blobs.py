"""The blob stores' contract, kept in memory, in a folder, in buckets of two real S3 servers, and behind a cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.blobs import BlobStore
from adaptry.blobs.local import LocalBlobs
from adaptry.blobs.memory import MemoryBlobs
from adaptry.blobs.s3 import Place, S3Blobs
from adaptry.blobs.tiered import TieredBlobs
from adaptry.testing.blob_contract import BlobContract


class TestInMemory(BlobContract):
    @pytest.fixture
    def blobs(self) -> BlobStore:
        return MemoryBlobs()


class TestInFiles(BlobContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return LocalBlobs(tmp_path / "blobs")


class TestInABucket(BlobContract):
    @pytest.fixture
    def blobs(self, s3_place: str) -> BlobStore:
        return S3Blobs(Place.parse(s3_place))


class TestInABucketWithoutConditions(BlobContract):
    @pytest.fixture
    def blobs(self, s3_place: str) -> BlobStore:
        store = S3Blobs(Place.parse(s3_place))
        store.objects.has_conditions = False
        return store


@pytest.mark.heavy
class TestInABucketOfCeph(BlobContract):
    @pytest.fixture
    def blobs(self, ceph_place: str) -> BlobStore:
        return S3Blobs(Place.parse(ceph_place))


class TestBehindACache(BlobContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return TieredBlobs(MemoryBlobs(), tmp_path / "cache", 1 << 30)


class TestInABucketBehindACache(BlobContract):
    @pytest.fixture
    def blobs(self, s3_place: str, tmp_path: Path) -> BlobStore:
        return TieredBlobs(S3Blobs(Place.parse(s3_place)), tmp_path / "cache", 1 << 30)
