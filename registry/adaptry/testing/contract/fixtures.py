"""What every promise is tested on: registries over one store for different people, and adapters to push."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.identity import LOCAL, Identity
from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry
from adaptry.testing.samples import tiny_lora

MakeRegistry = Callable[[Identity], Registry]
MakeLora = Callable[..., Adapter]

TONE = AdapterName.parse("acme/tone")
ADA = Identity("ada", "writer", ("acme",))
EVE = Identity("eve", "writer", ("evil",))
RON = Identity("ron", "reader", ("acme",))


class ContractFixtures:
    """Fixtures. An implementation overrides `make_registry`."""

    @pytest.fixture
    def make_registry(self) -> MakeRegistry:
        """Gives the same empty registry as different identities see it."""
        raise NotImplementedError

    @pytest.fixture
    def registry(self, make_registry: MakeRegistry) -> Registry:
        return make_registry(LOCAL)

    @pytest.fixture
    def lora(self, tmp_path: Path) -> MakeLora:
        """Makes small LoRA adapters; those of different seeds differ."""

        def make(seed: int = 1, **options: object) -> Adapter:
            folder = tmp_path / f"lora-{seed}-{len(list(tmp_path.iterdir()))}"
            # The options are passed on as given.
            return open_dir(tiny_lora(folder, seed=seed, **options))  # type: ignore[arg-type]

        return make
