"""The registries of transfer tests: two intact ones, one with broken connections, and one that
alters bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.flaky_registry import FlakyRegistry, TamperingRegistry
from adaptry.testing.samples import large_lora, tiny_lora


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[LocalRegistry]:
    """A second registry."""
    opened = open_local(tmp_path / "elsewhere")
    yield opened
    opened.catalog.close()


@pytest.fixture
def breaking(registry: LocalRegistry) -> FlakyRegistry:
    return FlakyRegistry(registry.context)


@pytest.fixture
def tampering(registry: LocalRegistry) -> TamperingRegistry:
    return TamperingRegistry(registry.context)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small adapter as PEFT writes it."""
    return tiny_lora(tmp_path / "out")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An adapter of a few MiB, so that its weights are sent in several chunks."""
    return large_lora(tmp_path / "large")
