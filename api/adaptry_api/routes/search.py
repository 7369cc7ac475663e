"""Search over all versions that the caller may read."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from adaptry.core import query
from adaptry.registry import protocol
from adaptry.registry.records import Page, VersionInfo
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit

ROUTES = guarded_router(f"{protocol.PREFIX}/search", "search")


@ROUTES.get("")
def search_versions(
    registry: CallersRegistry,
    q: Annotated[str, Query(description=query.GRAMMAR)] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[VersionInfo]:
    """Search versions, newest first.

    Without `q`, the result is all versions that the caller may read. A query is a list of conditions that
    must all hold, such as `base:meta-llama/Llama-3.1-8B rank<=16 metric.accuracy>0.8`.
    """
    return registry.versions.search(q, cursor, limit)
