"""The registry's contract, met with a bucket of a real S3 server: embedded, and by a server whose clients
transfer files directly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.contract.fixtures import MakeRegistry
from adaptry.testing.contract.uploads import UploadsContract
from adaptry.testing.registry_contract import RegistryContract
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

from .test_registry_http import registry_for


class OverABucket:
    """The registry on this machine."""

    @pytest.fixture
    def make_registry(self, tmp_path: Path, s3_place: str) -> MakeRegistry:
        return open_local(tmp_path / "registry", blobs=s3_place).on_behalf_of


class PastTheServer:
    """Every file, however small, is uploaded to and downloaded from the bucket directly, by addresses from
    the server.
    """

    @pytest.fixture
    def make_registry(
        self, tmp_path: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[MakeRegistry]:
        monkeypatch.setattr("adaptry.storage.local.uploads.DIRECT", 1)
        monkeypatch.setattr("adaptry_api.redirects.MIN_REDIRECT_SIZE", 1)
        settings = ServerSettings(
            data=tmp_path / "data",
            anonymous_read=True,
            blobs=s3_place,
            presign_downloads=True,
            presign_uploads=True,
        )
        with running_server(settings) as server:
            yield lambda identity: registry_for(server, identity)

    @pytest.fixture
    def stores(self, make_registry: MakeRegistry, tmp_path: Path, s3_place: str) -> Iterator[LocalRegistry]:
        with open_local(tmp_path / "data", blobs=s3_place) as stores:
            yield stores


class TestBytesPastTheServer(PastTheServer, UploadsContract):
    """The tests that differ most; they run every time."""


@pytest.mark.heavy
class TestOverABucket(OverABucket, RegistryContract):
    pass


@pytest.mark.heavy
class TestPastTheServer(PastTheServer, RegistryContract):
    pass
