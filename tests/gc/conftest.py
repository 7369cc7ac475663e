"""Registries to sweep, in a folder, built from the fixtures of the storage tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.testing.samples import tiny_lora

MakeLora = Callable[[int], Adapter]


@pytest.fixture
def lora(tmp_path: Path) -> MakeLora:
    """Makes adapters; those of different seeds differ in their weights but not in their config."""
    return lambda seed: open_dir(tiny_lora(tmp_path / f"lora-{seed}", seed=seed))
