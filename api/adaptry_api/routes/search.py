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
def search(
    registry: CallersRegistry,
    q: Annotated[str, Query(description=query.GRAMMAR)] = "",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[VersionInfo]:
    """Newest first."""
    return registry.versions.search(q, cursor, limit)
