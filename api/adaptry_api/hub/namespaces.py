"""Shared by `users` and `organizations`: a namespace, and the adapters in it that the caller may read.

A namespace is shown to callers who have rights in it or may read an adapter in it; for others it does not
exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, Request

from adaptry.registry.adapters import Adapters
from adaptry.registry.pagination import iter_items
from adaptry.registry.records import AdapterInfo
from adaptry.storage.catalog.files import stored_bytes
from adaptry_api.auth_policy import Caller, app_state_of
from adaptry_api.errors import HttpProblem
from adaptry_api.hub.name_case import canonical_namespace
from adaptry_api.hub.tree_entries import format_time
from adaptry_api.route_threads import run_in_own_threads

_PAGE = 200


async def namespace_of(request: Request, identity: Caller) -> str:
    asked = unquote(request.path_params["namespace"])
    return await run_in_own_threads(
        "reads", partial(canonical_namespace, app_state_of(request), identity, asked)
    )


Namespace = Annotated[str, Depends(namespace_of)]


def with_sizes(request: Request, infos: list[AdapterInfo]) -> list[dict[str, Any]]:
    with app_state_of(request).catalog.read() as tx:
        sizes = stored_bytes(tx, [info.name for info in infos])
    total = sum(sizes.values())
    return [
        {
            "id": str(info.name),
            "type": "model",
            "updatedAt": format_time(info.updated_at),
            "visibility": info.visibility,
            "storage": sizes.get(info.name, 0),
            "storagePercent": 100 * sizes.get(info.name, 0) / total if total else 0,
        }
        for info in infos
    ]


def visible_adapters(adapters: Adapters, namespace: str) -> list[AdapterInfo]:
    return list(iter_adapters(adapters, namespace))


def iter_adapters(adapters: Adapters, namespace: str | None) -> Iterator[AdapterInfo]:
    return iter_items(lambda cursor: adapters.list(namespace, cursor, _PAGE))


def require_known(is_known: bool, namespace: str) -> None:
    """Raises `HttpProblem` (404), without the code that clients interpret as a missing repository."""
    if not is_known:
        raise HttpProblem(404, f"this server has no namespace {namespace[:96]!a} that your token may see")
