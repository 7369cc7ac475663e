"""Adapters: lines of versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import BaseModel

from adaptry.core.refs import AdapterName
from adaptry.registry import protocol
from adaptry.registry.records import AdapterEdit, AdapterInfo, Event, Page
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import etag_response, require_if_match
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Cursor, Limit, Name

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters", "adapters")
ONE = "/{namespace}/{name}"


class NewAdapter(AdapterEdit, extra="forbid"):
    """A name, and what people say about it."""

    name: AdapterName


class AdapterEditRequest(AdapterEdit, extra="forbid"):
    """The fields to change; fields that are left out stay as they are."""


class AdapterRenameRequest(BaseModel, extra="forbid"):
    to: AdapterName


@ROUTES.post("", status_code=201)
def create(body: NewAdapter, registry: IdempotentRegistry) -> AdapterInfo:
    edit = AdapterEdit(description=body.description, tags=body.tags, visibility=body.visibility)
    return registry.adapters.create(body.name, edit)


@ROUTES.get("")
def list_all(
    registry: CallersRegistry,
    namespace: Annotated[str | None, Query(max_length=96)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AdapterInfo]:
    return registry.adapters.list(namespace, cursor, limit)


@ROUTES.get(ONE, response_model=AdapterInfo)
def show(request: Request, name: Name, registry: CallersRegistry) -> Response:
    return etag_response(request, registry.adapters.get(name))


@ROUTES.patch(ONE)
def edit(request: Request, name: Name, body: AdapterEditRequest, registry: CallersRegistry) -> AdapterInfo:
    """With `If-Match`, changes the adapter only if it is as the caller saw it."""
    require_if_match(request, lambda: registry.adapters.get(name))
    return registry.adapters.edit(
        name, AdapterEdit(description=body.description, tags=body.tags, visibility=body.visibility)
    )


@ROUTES.delete(ONE, status_code=204)
def delete(request: Request, name: Name, registry: CallersRegistry) -> None:
    """With `If-Match`, deletes the adapter only if it is as the caller saw it."""
    require_if_match(request, lambda: registry.adapters.get(name))
    registry.adapters.delete(name)


@ROUTES.post(f"{ONE}/rename")
def rename(name: Name, body: AdapterRenameRequest, registry: CallersRegistry) -> AdapterInfo:
    return registry.adapters.rename(name, body.to)


@ROUTES.get(f"{ONE}/history")
def history(name: Name, registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50) -> Page[Event]:
    return registry.adapters.history(name, cursor, limit)
