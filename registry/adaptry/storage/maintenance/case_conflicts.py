"""Names of a registry that differ only in capitals, older than their refusal: what `adaptry doctor` lists.

Each stays reachable as it is written. On the Hub's protocol, and in a folder on many systems, they are one
name.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.storage.catalog import case_conflicts as names
from adaptry.storage.catalog.database import Catalog


@dataclass(frozen=True, slots=True)
class CaseConflict:
    """What the names are of (`adapters`, `namespaces`, …), and the names."""

    kind: str
    names: tuple[str, ...]


def find_case_conflicts(catalog: Catalog) -> tuple[CaseConflict, ...]:
    """Every group of names that differ only in capitals. Raises `Unavailable`."""
    with catalog.read() as tx:
        return tuple(CaseConflict(kind, found) for kind, found in names.iter_case_conflicts(tx))
