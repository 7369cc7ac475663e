"""The registry's contract, met by two servers behind the load balancer that share only PostgreSQL and a
bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict
from adaptry.core.identity import Identity
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.interface import Registry
from adaptry.storage.blobs.s3 import S3Blobs, S3Location
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.contract.fixtures import MakeRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.registry_contract import RegistryContract
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

from .load_balancer import balanced


@pytest.fixture
def pair(tmp_path: Path, postgres: PostgresServer, s3_place: str) -> Iterator[tuple[Server, Server]]:
    (tmp_path / "secret").write_text("7" * 64)
    one = ServerSettings(
        data=tmp_path / "one",
        catalog=postgres.database(),
        blobs=s3_place,
        anonymous_read=True,
        signing_secret=tmp_path / "secret",
        upload_spool=tmp_path / "spools",
    )
    with running_server(one) as first, running_server(replace(one, data=tmp_path / "other")) as second:
        yield first, second


@pytest.fixture
def url(pair: tuple[Server, Server], tmp_path: Path) -> Iterator[str]:
    """The balancer's URL: consecutive requests go to different servers."""
    with balanced([server.url for server in pair], tmp_path) as url:
        yield url


def test_an_adapter_is_pushed_and_pulled_with_each_request_to_the_other_server(
    pair: tuple[Server, Server], url: str, tmp_path: Path
) -> None:
    registry = HttpRegistry(url, pair[0].admin)
    pushed = push(registry, open_dir(tiny_lora(tmp_path / "lora")), "acme/tone").version
    seen = registry.aliases.move(pushed.name, "prod", pushed.digest, None)
    with pytest.raises(Conflict):
        registry.aliases.move(pushed.name, "prod", pushed.digest, None)
    registry.aliases.move(pushed.name, "prod", pushed.digest, seen.generation)
    pull(registry, "acme/tone@prod", tmp_path / "pulled")
    names = ("adapter_config.json", "adapter_model.safetensors")
    assert [(tmp_path / "pulled" / name).read_bytes() for name in names] == [
        (tmp_path / "lora" / name).read_bytes() for name in names
    ]
    for server in pair:
        assert b'route="/api/v1' in server.call("GET", "/metrics").body


@pytest.mark.heavy
class TestBehindABalancer(RegistryContract):
    @pytest.fixture
    def make_registry(self, pair: tuple[Server, Server], url: str) -> MakeRegistry:
        def make(identity: Identity) -> Registry:
            if not identity.grants:
                return HttpRegistry(url)
            return HttpRegistry(url, pair[0].token_of(identity))

        return make

    @pytest.fixture
    def stores(self, pair: tuple[Server, Server], s3_place: str) -> LocalRegistry:
        return LocalRegistry(RegistryContext(pair[0].catalog, S3Blobs(S3Location.parse(s3_place))))
