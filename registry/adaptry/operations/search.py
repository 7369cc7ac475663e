"""Searches for versions: reads pages up to a limit, and returns them as one value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from adaptry.core.display import format_count, format_metrics, html_table, short_repr, table_text
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import VersionInfo
from adaptry.registry.versions import Versions

_PAGE = 200


@dataclass(frozen=True, slots=True, repr=False)
class SearchResult(Sequence[VersionInfo]):
    """The versions that match a query, in its order. `has_more`: there are more than the limit."""

    query: str
    versions: tuple[VersionInfo, ...]
    has_more: bool

    @overload
    def __getitem__(self, index: int) -> VersionInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[VersionInfo]: ...
    def __getitem__(self, index: int | slice) -> VersionInfo | Sequence[VersionInfo]:
        return self.versions[index]

    def __len__(self) -> int:
        return len(self.versions)

    def __repr__(self) -> str:
        head = short_repr(self, self._title())
        rows = [(*row[:4], f"rank {row[4]}" if row[4] else "", *row[5:]) for row in self._rows()]
        return f"{head}\n{table_text(rows)}" if rows else head

    def _repr_html_(self) -> str:
        return html_table(
            self._title(),
            ("version", "aliases", "state", "method", "rank", "modules", "base", "metrics"),
            self._rows(),
        )

    def _title(self) -> str:
        counted = format_count(len(self.versions), "version")
        return f"{self.query!r}: {f'the first {counted}' if self.has_more else counted}"

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                version.label,
                ", ".join(version.aliases),
                "" if version.state == "active" else version.state,
                version.method,
                "" if version.rank is None else str(version.rank),
                ", ".join(version.targets),
                version.base_name or "",
                format_metrics(version.metrics),
            )
            for version in self.versions
        ]


def search_versions(
    versions: Versions, query: str, limit: int, sort: str = "newest", reverse: bool = False
) -> SearchResult:
    """The first `limit` versions that match. Raises `InvalidQuery`, `Invalid` for an unknown sort key."""
    found: list[VersionInfo] = []
    cursor: str | None = None
    while len(found) < limit:
        page = versions.search(query, cursor, min(_PAGE, limit - len(found)), sort=sort, reverse=reverse)
        found += page.items
        cursor = page.next
        if cursor is None:
            break
    return SearchResult(query, tuple(found), cursor is not None)
