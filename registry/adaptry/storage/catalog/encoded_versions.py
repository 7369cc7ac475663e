"""The JSON of versions as searches show them, kept from one page to the next.

Building a version from its rows and encoding it takes longer than finding it. So its JSON is kept with the
rows that it was made from, and used again only while they are equal: either the rows are read and compared,
or no process has committed since they were (`PreparedReads.kept`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import VersionInfo
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.prepared import PreparedReads
from adaptry.storage.catalog.shown_versions import version_of
from adaptry.storage.catalog.version_info import Columns, aliases_and_metrics, columns_of

_CACHE_SIZE = 512  # of about 3 kB each


@dataclass(frozen=True, slots=True)
class EncodedVersion:
    """A version as JSON, with its key and the digest of its base."""

    key: int
    json: bytes
    base: str | None


class EncodedVersions:
    """Keeps the JSON of a catalog's versions, for any number of threads."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Columns, Sequence[Any], EncodedVersion]] = {}

    def of(self, tx: Reads, keys: Sequence[int]) -> list[EncodedVersion]:
        """The versions with these keys, which must exist, in their order."""
        current = tx.kept("versions") if isinstance(tx, PreparedReads) else {}
        missing = [key for key in keys if key not in current]
        if missing:
            current |= {version.key: version for version in self._read(tx, missing)}
        return [current[key] for key in keys]

    def _read(self, tx: Reads, keys: Sequence[int]) -> list[EncodedVersion]:
        columns = columns_of(tx, keys)
        beside = aliases_and_metrics(tx, keys)
        return [self._encoded(row, beside[row.id]) for row in columns]

    def _encoded(self, row: Columns, beside: Sequence[Any]) -> EncodedVersion:
        """(`Any`: rows.)"""
        kept = self._kept.get(row.id)
        if kept is not None and kept[:2] == (row, beside):
            return kept[2]
        version = EncodedVersion(row.id, encoded(version_of(row, beside)), row.base_id)
        if len(self._kept) >= _CACHE_SIZE:
            self._kept.clear()
        self._kept[row.id] = row, beside, version
        return version


def encoded(version: VersionInfo) -> bytes:
    return version.model_dump_json(by_alias=True).encode()
