"""The metrics of one version are limited: its listings show all of them, and requests return all values."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Invalid
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local import LocalRegistry, RegistryContext, metrics
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
FIRST = Ref.parse("acme/tone@1")


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs()))
    push(registry, open_dir(tiny_lora(tmp_path / "first", seed=1)), str(TONE))
    push(registry, open_dir(tiny_lora(tmp_path / "second", seed=2)), str(TONE))
    return registry


def test_a_version_has_at_most_1024_metrics(registry: LocalRegistry) -> None:
    for number in range(16):
        registry.metrics.log(FIRST, {f"metric-{number}-{at}": 1.0 for at in range(64)})
    with pytest.raises(Invalid, match=r"acme/tone@1 may have at most 1,024 metrics; .*adaptry evidence add"):
        registry.metrics.log(FIRST, {"metric-0-0": 0.5, "another": 0.5})
    registry.metrics.log(FIRST, {"metric-0-0": 0.25})
    found = registry.versions.get(FIRST).metrics
    assert len(found) == 1024
    assert found["metric-0-0"] == 0.25
    registry.metrics.log(Ref.parse("acme/tone@2"), {"another": 0.5})


def test_a_version_has_a_limited_number_of_logged_values(
    registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metrics.MAX_VALUES == 10_000
    monkeypatch.setattr(metrics, "MAX_VALUES", 5)
    for value in range(4):
        registry.metrics.log(FIRST, {"loss": value})
    with pytest.raises(Invalid, match="has 4 logged values, and may have at most 5"):
        registry.metrics.log(FIRST, {"loss": 0.5, "accuracy": 0.5})
    registry.metrics.log(FIRST, {"loss": 0.5})
    assert len(registry.metrics.list(FIRST)) == 5
