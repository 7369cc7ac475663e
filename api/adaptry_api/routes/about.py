"""The server's version, protocol and limits, and the caller's identity."""

from __future__ import annotations

import json

from fastapi import Request, Response
from pydantic import BaseModel

from adaptry import __version__
from adaptry.core import manifest
from adaptry.registry import protocol
from adaptry_api.auth_policy import PUBLIC, Caller, app_state_of, guarded_router
from adaptry_api.description.document import describe


class ServerLimits(BaseModel):
    """The server's limits; larger requests are refused."""

    file: int = manifest.MAX_FILE
    revision: int = manifest.MAX_REVISION
    files: int = manifest.MAX_FILES
    json_body: int = protocol.JSON_LIMIT
    page: int = 200


class Whoami(BaseModel):
    """The caller's identity in the registry."""

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
    """Changes with each restore of the registry."""


ROUTES = guarded_router(protocol.PREFIX, "about")


@ROUTES.get("")
def get_server_info(request: Request, identity: Caller) -> ServerInfoResponse:
    """Get the server's versions and limits, and the caller's identity.

    Useful as a first call: it shows that the address and the token are right.
    """
    epoch = app_state_of(request).catalog.epoch.id
    return ServerInfoResponse(
        identity=identity.name, role=identity.role, namespaces=identity.namespaces, epoch=epoch
    )


@ROUTES.get("/whoami")
def whoami(identity: Caller) -> Whoami:
    """Get the caller's identity, role and namespaces."""
    return Whoami(identity=identity.name, role=identity.role, namespaces=identity.namespaces)


@ROUTES.get("/openapi.json", dependencies=[PUBLIC], include_in_schema=False)
def get_description(request: Request) -> Response:
    """This description: the same for every caller; it contains nothing from the registry."""
    return Response(json.dumps(describe(request.app)), media_type="application/json")


AT_THE_ROOT = guarded_router()
AT_THE_ROOT.add_api_route("/openapi.json", get_description, dependencies=[PUBLIC], include_in_schema=False)
"""The address where tools look for a description first."""
