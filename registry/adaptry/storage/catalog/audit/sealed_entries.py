"""Entries of the audit log, each compared with the hash that it was sealed with.

Removed entries, and entries replaced together with their hash, are detected by
`operations.audit_verification` from the signed roots.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.transparency.merkle import leaf_hash
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.audit_log import entry_pages
from adaptry.storage.catalog.database import Catalog

_BATCH = 1000


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    start = 0
    while True:
        with catalog.read() as tx:
            entries = entry_pages.sealed(tx, start, _BATCH)
        if not entries:
            return
        for entry in entries:
            if leaf_hash(entry.line.encode()).hex() != entry.leaf:
                yield IntegrityProblem(
                    f"audit_entries ({entry.id})",
                    f"entry {entry.seq} of the audit log was changed after it was sealed",
                )
        start = (entries[-1].seq or 0) + 1
