"""Adapters: named series of versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel

from adaptry.core.refs import AdapterName
from adaptry.core.value import CLOSED, value
from adaptry.registry import protocol
from adaptry.registry.records import AdapterEdit, AdapterInfo, Event, Page
from adaptry.registry.sort_keys import ADAPTER_SORT_KEYS
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import IfMatch, etag_response, require_unchanged
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Cursor, Limit, Name, Reverse

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters", "adapters")
ONE = "/{namespace}/{name}"


@value
class NewAdapter(AdapterEdit):
    """A name, a description, tags and the visibility."""

    __pydantic_config__ = CLOSED

    name: AdapterName


@value
class AdapterEditRequest(AdapterEdit):
    """The fields to change; fields that are left out stay as they are."""

    __pydantic_config__ = CLOSED


class AdapterRenameRequest(BaseModel, extra="forbid"):
    to: AdapterName


@ROUTES.post("", status_code=201)
def create_adapter(body: NewAdapter, registry: IdempotentRegistry) -> AdapterInfo:
    """Create an adapter without versions.

    A push to a new name creates the adapter too; this sets its description, tags and visibility first.
    """
    edit = AdapterEdit(description=body.description, tags=body.tags, visibility=body.visibility)
    return registry.adapters.create(body.name, edit)


@ROUTES.get("")
def list_adapters(
    registry: CallersRegistry,
    namespace: Annotated[
        str | None, Query(max_length=96, description="Only adapters of this namespace.")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    sort: Annotated[str, Query(max_length=96, json_schema_extra={"enum": [*ADAPTER_SORT_KEYS]})] = "name",
    reverse: Reverse = False,
) -> Page[AdapterInfo]:
    """List the adapters that the caller may read.

    They are sorted by name unless `sort` names another order, which begins with the most recently updated
    adapter, or with the one that has the most downloads or versions.
    """
    return registry.adapters.list(namespace, cursor, limit, sort=sort, reverse=reverse)


@ROUTES.get(ONE, response_model=AdapterInfo)
def get_adapter(request: Request, name: Name, registry: CallersRegistry) -> Response:
    """Get an adapter: its description, tags, visibility and counts."""
    return etag_response(request, registry.adapters.get(name))


@ROUTES.patch(ONE)
def edit_adapter(
    name: Name, body: AdapterEditRequest, registry: CallersRegistry, if_match: IfMatch = None
) -> AdapterInfo:
    """Change an adapter's description, tags or visibility.

    Fields that are left out stay as they are. With `If-Match`, the change is made only if the adapter is
    unchanged since the caller read it.
    """
    require_unchanged(if_match, lambda: registry.adapters.get(name))
    return registry.adapters.edit(
        name, AdapterEdit(description=body.description, tags=body.tags, visibility=body.visibility)
    )


@ROUTES.delete(ONE, status_code=204)
def delete_adapter(name: Name, registry: CallersRegistry, if_match: IfMatch = None) -> None:
    """Delete an adapter with all its versions.

    It is refused while an alias names one of them. With `If-Match`, it is deleted only if it is unchanged
    since the caller read it.
    """
    require_unchanged(if_match, lambda: registry.adapters.get(name))
    registry.adapters.delete(name)


@ROUTES.post(f"{ONE}/rename")
def rename_adapter(name: Name, body: AdapterRenameRequest, registry: CallersRegistry) -> AdapterInfo:
    """Rename an adapter.

    Its versions, aliases and history move with it.
    """
    return registry.adapters.rename(name, body.to)


@ROUTES.get(f"{ONE}/history")
def list_adapter_events(
    name: Name, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[Event]:
    """List an adapter's events, newest first."""
    return registry.adapters.history(name, cursor, limit)
