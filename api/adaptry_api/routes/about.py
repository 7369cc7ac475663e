"""What this server is, which protocol it speaks, and the caller's identity."""

from __future__ import annotations

import json

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from adaptry import __version__
from adaptry.core import manifest
from adaptry.registry import protocol
from adaptry_api.auth_policy import PUBLIC, Caller, app_state_of, caller, guarded_router


class ServerLimits(BaseModel):
    """What is refused beyond."""

    file: int = manifest.MAX_FILE
    revision: int = manifest.MAX_REVISION
    files: int = manifest.MAX_FILES
    json_body: int = protocol.JSON_LIMIT
    page: int = 200


class Whoami(BaseModel):
    """The caller, as the registry knows them."""

    identity: str
    role: str
    namespaces: tuple[str, ...]


class ServerInfoResponse(Whoami):
    """Versions, limits and the caller."""

    version: str = __version__
    api: int = protocol.API
    api_oldest: int = protocol.API_OLDEST
    manifest_schema: int = manifest.SCHEMA
    limits: ServerLimits = ServerLimits()
    epoch: str | None = None
    """Another one after each restore of the registry."""


def router(docs: bool) -> APIRouter:
    """`docs` shows the OpenAPI description to callers without a token."""
    routes = guarded_router(protocol.PREFIX, "about")

    @routes.get("")
    def about(request: Request, identity: Caller) -> ServerInfoResponse:
        epoch = app_state_of(request).catalog.epoch.id
        return ServerInfoResponse(
            identity=identity.name, role=identity.role, namespaces=identity.namespaces, epoch=epoch
        )

    @routes.get("/whoami")
    def whoami(identity: Caller) -> Whoami:
        return Whoami(identity=identity.name, role=identity.role, namespaces=identity.namespaces)

    reader = PUBLIC if docs else Depends(caller)

    @routes.get("/openapi.json", dependencies=[reader], include_in_schema=False)
    def openapi(request: Request) -> Response:
        return Response(json.dumps(request.app.openapi()), media_type="application/json")

    return routes
