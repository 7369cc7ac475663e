"""Damaged files behind a server: readers get an error with a remedy, and a push through the server repairs
them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.core.errors import CorruptData
from adaptry.core.refs import Ref
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.connect import open_local
from adaptry.storage.maintenance.integrity import verify

TONE = Ref.parse("acme/tone")


def test_a_damaged_file_is_refused_over_http_and_repaired_by_a_push(
    registry: HttpRegistry, tone: Adapter, tmp_path: Path
) -> None:
    push(registry, tone, "acme/tone")
    beside = open_local(tmp_path / "data")
    stored = (path for path in (tmp_path / "data" / "blobs" / "sha256").rglob("*") if path.is_file())
    path = max(stored, key=lambda one: one.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert [one.kind for one in verify(beside.catalog, beside.blobs)] == ["file"]

    assert registry.versions.get(TONE).is_damaged
    with pytest.raises(CorruptData, match="adaptry repair"):
        pull(registry, TONE, tmp_path / "pulled")
    push(registry, tone, "acme/tone")

    assert not registry.versions.get(TONE).is_damaged
    pull(registry, TONE, tmp_path / "pulled")
    assert verify(beside.catalog, beside.blobs) == ()
