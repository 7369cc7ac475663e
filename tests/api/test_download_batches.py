"""Downloads of many versions are stored in several short transactions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Unavailable
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.storage.blobs.memory import MemoryBlobs
from adaptry.storage.catalog.database import Catalog, Transaction
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.testing.samples import tiny_lora
from adaptry_api import download_counts
from adaptry_api.download_counts import DownloadCounts


def test_downloads_are_stored_some_at_a_time_and_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = LocalRegistry(RegistryContext(Catalog("sqlite://"), MemoryBlobs()))
    refs = [Ref.parse(f"acme/tone@{number}") for number in range(1, 6)]
    for number in range(5):
        push(registry, open_dir(tiny_lora(tmp_path / str(number), seed=number)), "acme/tone")
    monkeypatch.setattr(download_counts, "MAX_BATCH", 2)
    original, transactions = registry.catalog.write_nondurable, 0

    @contextmanager
    def second_fails() -> Iterator[Transaction]:
        nonlocal transactions
        transactions += 1
        with original() as tx:
            yield tx
            if transactions == 2:
                raise Unavailable("another process is writing")

    monkeypatch.setattr(registry.catalog, "write_nondurable", second_fails)
    counts = DownloadCounts()
    for ref in (*refs, *refs):
        counts.note(ref)
    with pytest.raises(Unavailable):
        counts.store(registry.catalog)
    assert sum(registry.versions.get(ref).downloads for ref in refs) == 2 * 2
    counts.store(registry.catalog)
    assert [registry.versions.get(ref).downloads for ref in refs] == [2] * 5
    assert transactions == 2 + 2
    registry.close()
