"""Names of a registry that differ only in case, from before such names were refused, for `adaptry doctor`.

Each stays reachable as written. In the Hub's protocol, and in folders on many systems, they are one name.
"""

from __future__ import annotations

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog import case_conflicts as names
from adaptry.storage.catalog.database import Catalog


@dataclass(frozen=True, slots=True)
class CaseConflict:
    """The kind of the names (`adapters`, `namespaces`, …), and the names."""

    kind: str
    names: tuple[str, ...]


def find_case_conflicts(catalog: Catalog) -> tuple[CaseConflict, ...]:
    """Every group of names that differ only in case. Raises `Unavailable`."""
    with catalog.read() as tx:
        return tuple(CaseConflict(kind, found) for kind, found in names.iter_case_conflicts(tx))
