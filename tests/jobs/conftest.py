"""A registry with jobs, for each kind of catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptry.storage.local import LocalRegistry
from adaptry.testing.runners import make_merge_registry


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The registry's folder."""
    return tmp_path / "data"


@pytest.fixture
def busy(data: Path, tmp_path: Path) -> Iterator[LocalRegistry]:
    """A registry on SQLite."""
    registry = make_merge_registry(data, tmp_path / "scraps")
    yield registry
    registry.close()
