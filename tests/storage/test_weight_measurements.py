"""Stored measurements of weights are derived data: changed rows are detected and deleted, and a sweep deletes
those of revisions without an owner.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.weight_statistics import (
    ModulePairDistance,
    ModuleStatistics,
    WeightDistance,
    WeightStatistics,
)
from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.repair import repair_registry
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.weight_measurements import is_measured, store_distance, store_statistics
from adaptry.storage.maintenance.gc import collect_garbage
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.samples import tiny_lora

TONE, STYLE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/style")
MODULE = ModuleStatistics(module="q", rank=2, norm=5.0, effective_rank=1.5, singular_values=(4.0, 3.0))
STATISTICS = WeightStatistics(norm=5.0, modules=(MODULE,))
DISTANCE = WeightDistance(
    distance=2.0, cosine=0.5, modules=(ModulePairDistance(module="q", distance=2.0, cosine=0.5),)
)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    with closing(open_local(tmp_path / "data")) as opened:
        for seed, name in enumerate((TONE, STYLE), 1):
            push(opened, open_dir(tiny_lora(tmp_path / name.name, seed=seed)), name)
        tone, style = (opened.versions.get(Ref(name)).digest for name in (TONE, STYLE))
        store_statistics(opened.context, tone, STATISTICS)
        store_distance(opened.context, style, tone, DISTANCE)
        yield opened


def test_stored_figures_are_read_back_and_a_pair_in_either_order(registry: LocalRegistry) -> None:
    assert registry.versions.weight_statistics(Ref(TONE)) == STATISTICS
    assert registry.versions.weight_distance(Ref(TONE), Ref(STYLE)) == DISTANCE
    assert registry.versions.weight_distance(Ref(STYLE), Ref(TONE)) == DISTANCE
    with pytest.raises(NotFound, match="adaptry jobs submit weight-statistics versions=acme/style"):
        registry.versions.weight_statistics(Ref(STYLE))
    assert verify(registry.catalog, registry.blobs) == ()


@pytest.mark.parametrize(
    "change",
    [
        "measurement = 2",
        "figures = zeroblob(9)",
        f"checksum = '{'0' * 64}'",
        f"first = '{'0' * 64}'",
        f"second = '{'f' * 64}'",
    ],
)
def test_a_changed_row_is_found_not_read_and_dropped_by_a_repair(
    registry: LocalRegistry, tmp_path: Path, change: str
) -> None:
    tone = registry.versions.get(Ref(TONE)).digest
    database = tmp_path / "data" / "catalog.sqlite"
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute(f"UPDATE weight_measurements SET {change} WHERE second = ''")
    assert not is_measured(registry.context, tone)
    found = verify(registry.catalog, registry.blobs)
    assert [problem.kind for problem in found] == ["derived"]
    assert found[0].where.startswith("weights of sha256:")
    repair_registry(registry, read_bytes=True)
    assert verify(registry.catalog, registry.blobs) == ()
    assert registry.versions.weight_distance(Ref(STYLE), Ref(TONE)) == DISTANCE, "only that row is dropped"


def test_a_sweep_drops_figures_of_deleted_revisions(registry: LocalRegistry) -> None:
    tone, style = (registry.versions.get(Ref(name)).digest for name in (TONE, STYLE))
    registry.adapters.delete(TONE)
    for _ in range(2):
        collect_garbage(registry, grace=timedelta(0))
    assert not is_measured(registry.context, tone)
    assert not is_measured(registry.context, style, tone)
