"""`search`: finds versions by their properties."""

from __future__ import annotations

from adaptry.core.errors import Invalid
from adaptry.facade.registries import RegistryLike, opened
from adaptry.operations.search import SearchResult, search_versions


def search(
    registry: RegistryLike,
    query: str = "",
    *,
    limit: int = 50,
    sort: str = "newest",
    reverse: bool = False,
) -> SearchResult:
    """Finds versions by base, method, rank, module, metric, evaluation and more.

        for version in adaptry.search(registry, "base:org/model rank<=16 metric.accuracy>=0.9"):
            print(version.label, version.metrics)

    Args:
        registry: An open registry, a server's URL, or a folder.
        query: Terms that must all match; `OR` and parentheses combine them differently. Empty: every version.
            Without a `state:` term, only active and deprecated versions are found.
        limit: The maximum number of versions to return.
        sort: `newest`, `name`, `created`, `updated`, `downloads`, `rank`, `alpha`, `size`, `metric.NAME` or
            `eval.TASK.METRIC`. All but `name` begin with the newest or largest; versions without a value
            come last.
        reverse: Reverse the order.

    Returns:
        The versions as a sequence; `has_more` is True if there are more than `limit`.

    Raises:
        InvalidQuery: the query cannot be parsed; the message names the wrong term, and the nearest field.
        Invalid: an unknown sort key.
        Unauthenticated, Unavailable.
    """
    if limit < 1:
        raise Invalid(f"limit must be at least 1, not {limit}")
    with opened(registry) as looked_in:
        return search_versions(looked_in.versions, query, limit, sort, reverse)
