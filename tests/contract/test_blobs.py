"""The contract of blob stores: in memory, in a folder, in buckets of two real S3 servers, and
behind a cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adaptry.storage.blobs import BlobStore
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.blobs.s3 import S3Blobs, S3Location
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.testing.blob_contract import BlobContract
from adaptry.testing.fault_proxy import run_proxy
from adaptry.testing.http_fault_proxy import HttpFaultProxy


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
        return S3Blobs(S3Location.parse(s3_place))


class TestInABucketWithoutConditions(BlobContract):
    """The server answers 501 to every request with a condition, as OpenStack's Swift does."""

    @pytest.fixture
    def blobs(self, s3_place: str) -> Iterator[BlobStore]:
        place = S3Location.parse(s3_place)
        where = urlsplit(place.endpoint or "")
        with run_proxy(HttpFaultProxy(where.hostname or "", where.port or 0)) as proxy:
            proxy.arm_http(
                "not_implemented", times=None, matches=lambda request: b"If-None-Match" in request.head
            )
            store = S3Blobs(replace(place, endpoint=f"http://127.0.0.1:{proxy.port}"))
            yield store
            assert proxy.fault_count <= 4  # it is not queried repeatedly


@pytest.mark.heavy
class TestInABucketOfCeph(BlobContract):
    @pytest.fixture
    def blobs(self, ceph_place: str) -> BlobStore:
        return S3Blobs(S3Location.parse(ceph_place))


class TestBehindACache(BlobContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return TieredBlobs(MemoryBlobs(), tmp_path / "cache", 1 << 30)


class TestInABucketBehindACache(BlobContract):
    @pytest.fixture
    def blobs(self, s3_place: str, tmp_path: Path) -> BlobStore:
        return TieredBlobs(S3Blobs(S3Location.parse(s3_place)), tmp_path / "cache", 1 << 30)
