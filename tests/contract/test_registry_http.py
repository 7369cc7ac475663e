"""The registry's contract, met by the client and a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adaptry.core.identity import Identity
from adaptry.registry.http import HttpRegistry
from adaptry.registry.interface import Registry
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.contract.fixtures import MakeRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.registry_contract import RegistryContract
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server


def registry_for(server: Server, identity: Identity) -> Registry:
    """A client with a token for that identity."""
    if not identity.grants:
        return HttpRegistry(server.url)
    return server.registry(server.token_of(identity))


class TestHttpRegistry(RegistryContract):
    """Each identity has a separate token; the anonymous one has none."""

    @pytest.fixture
    def catalog(self) -> str | None:
        """The location of the server's catalog, if it is not in its folder."""
        return None

    @pytest.fixture
    def make_registry(
        self, tmp_path: Path, catalog: str | None, at_the_end: ExitStack
    ) -> Iterator[MakeRegistry]:
        settings = ServerSettings(data=tmp_path / "data", catalog=catalog, anonymous_read=True)
        with running_server(settings, at_the_end.callback) as server:
            yield lambda identity: registry_for(server, identity)

    @pytest.fixture
    def stores(
        self, make_registry: MakeRegistry, tmp_path: Path, catalog: str | None, at_the_end: ExitStack
    ) -> LocalRegistry:
        return at_the_end.enter_context(open_local(tmp_path / "data", catalog=catalog))


@pytest.mark.heavy
class TestHttpRegistryOnPostgres(TestHttpRegistry):
    @pytest.fixture
    def catalog(self, postgres: PostgresServer) -> str:
        return postgres.url(postgres.create_migrated())
