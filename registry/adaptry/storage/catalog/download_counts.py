"""Adds downloads that a server has counted to their versions and adapters."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.core.refs import Ref
from adaptry.storage.catalog import adapters, versions
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.ref_resolution import resolve_ref


def add(tx: Transaction, counts: Mapping[Ref, int]) -> None:
    """Adds a number of downloads for each version. A version that was deleted since then is left out."""
    for ref, downloads in counts.items():
        resolved = resolve_ref(tx, ref)
        row = resolved.version(ref.selector) if resolved else None
        if resolved is None or row is None:
            continue
        versions.count_downloads(tx, versions.to_record(row), downloads)
        adapters.count_downloads(tx, resolved.adapter, downloads)
