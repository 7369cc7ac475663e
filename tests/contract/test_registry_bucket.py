"""The registry's contract, kept over a bucket of a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.opening import open_local
from adaptry.testing.promises.ground import MakeRegistry
from adaptry.testing.registry_contract import RegistryContract

pytestmark = pytest.mark.heavy


class TestInABucket(RegistryContract):
    @pytest.fixture
    def make_registry(self, tmp_path: Path, s3_place: str) -> MakeRegistry:
        return open_local(tmp_path / "registry", blobs=s3_place).on_behalf_of
