"""The client and a real server keep every promise of a registry, as the local one does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.client import HttpRegistry
from adaptry.identity import Identity
from adaptry.registry import Registry
from adaptry.testing.promises.ground import MakeRegistry
from adaptry.testing.registry_contract import RegistryContract
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import serving


class TestHttpRegistry(RegistryContract):
    """Each identity is a token of its own; who is nobody has none."""

    @pytest.fixture
    def make_registry(self, tmp_path: Path) -> Iterator[MakeRegistry]:
        with serving(ServerSettings(data=tmp_path / "data", anonymous_read=True)) as server:

            def make(identity: Identity) -> Registry:
                if not identity.namespaces:
                    return HttpRegistry(server.url)
                return server.registry(server.token(identity.name, identity.role, identity.namespaces))

            yield make
