"""`search`: finds versions by their properties."""

from __future__ import annotations

from adaptry.core.errors import Invalid
from adaptry.facade.registries import RegistryLike, opened
from adaptry.operations.search import SearchResult, search_versions


def search(registry: RegistryLike, query: str = "", *, limit: int = 50) -> SearchResult:
    """Finds versions by base, method, rank, module, metric and more, newest first.

        for version in adaptry.search(registry, "base:org/model rank<=16 metric.accuracy>=0.9"):
            print(version.label, version.metrics)

    Args:
        registry: An open registry, a server's URL, or a folder.
        query: Terms that must all hold; empty finds every version. Without a `state:` term, only active and
            deprecated versions are found.
        limit: The largest number of versions to return.

    Returns:
        The versions as a sequence; `has_more` is True if the limit cut the list.

    Raises:
        InvalidQuery: the query cannot be parsed; the message shows where, and the grammar.
        Unauthenticated, Unavailable.
    """
    if limit < 1:
        raise Invalid(f"limit is at least 1, not {limit}")
    with opened(registry) as looked_in:
        return search_versions(looked_in.versions, query, limit)
