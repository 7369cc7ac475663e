"""Search over all versions that the caller may read."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from adaptry.core import query
from adaptry.registry import protocol
from adaptry.registry.records import Page, VersionInfo
from adaptry.registry.sort_keys import SEARCH_SORT_KEYS
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit, Reverse

_SORT = (
    f"The order: {', '.join(f'`{key}`' for key in SEARCH_SORT_KEYS)}. All but `name` begin with the newest or"
    " the largest values; versions without a value come last."
)
ROUTES = guarded_router(f"{protocol.PREFIX}/search", "search")


@ROUTES.get("")
def search_versions(
    registry: CallersRegistry,
    q: Annotated[str, Query(description=query.GRAMMAR)] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
    sort: Annotated[str, Query(max_length=512, description=_SORT)] = "newest",
    reverse: Reverse = False,
) -> Page[VersionInfo]:
    """Search versions.

    Without `q`, the result is all versions that the caller may read. Adjacent conditions must all hold, such
    as `base:meta-llama/Llama-3.1-8B rank<=16 metric.accuracy>0.8`; `OR`, parentheses and `-` combine them,
    such as `(alias:prod OR alias:canary) -tag:draft`.

    A request reads a limited number of rows. Where few versions match, a page has fewer than `limit` items,
    maybe none, and still a `next`: continue until there is none.
    """
    return registry.versions.search(q, cursor, limit, sort=sort, reverse=reverse)
