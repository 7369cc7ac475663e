"""The fixtures of all promises: registries over one store for different identities, and adapters to push."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

MakeRegistry = Callable[[Identity], Registry]
MakeLora = Callable[..., Adapter]

TONE = AdapterName.parse("acme/tone")
ADA = Identity.with_role("ada", "writer", ("acme",))
EVE = Identity.with_role("eve", "writer", ("evil",))
RON = Identity.with_role("ron", "reader", ("acme",))


class ContractFixtures:
    """Fixtures. An implementation overrides `make_registry`, and a remote one also `stores`."""

    @pytest.fixture
    def make_registry(self) -> MakeRegistry:
        """Returns the same, initially empty, registry for different identities."""
        raise NotImplementedError

    @pytest.fixture
    def registry(self, make_registry: MakeRegistry) -> Registry:
        return make_registry(LOCAL)

    @pytest.fixture
    def stores(self, registry: Registry) -> LocalRegistry:
        """The catalog and the files of the registry, for tests that damage them."""
        assert isinstance(registry, LocalRegistry)
        return registry

    @pytest.fixture
    def lora(self, tmp_path: Path) -> MakeLora:
        """Makes small LoRA adapters; those of different seeds differ."""

        def make(seed: int = 1, **options: object) -> Adapter:
            folder = tmp_path / f"lora-{seed}-{len(list(tmp_path.iterdir()))}"
            # The options are passed on as given.
            return open_dir(tiny_lora(folder, seed=seed, **options))  # type: ignore[arg-type]

        return make
