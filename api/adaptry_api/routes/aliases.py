"""Aliases: moved by compare-and-swap. The `ETag` of an alias is its generation."""

from __future__ import annotations

from fastapi import Request, Response
from pydantic import BaseModel

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.registry import protocol
from adaptry.registry.records import AliasInfo
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.errors import HttpProblem
from adaptry_api.etags import etag_response, if_match_generation
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Name

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/aliases", "aliases")
ONE = "/{alias}"


class AliasMoveRequest(BaseModel, extra="forbid"):
    """The revision that the alias is to name."""

    to: Digest


@ROUTES.get("")
def list_all(name: Name, registry: CallersRegistry) -> tuple[AliasInfo, ...]:
    return registry.aliases.list(name)


@ROUTES.get(ONE, response_model=AliasInfo)
def show(request: Request, name: Name, alias: str, registry: CallersRegistry) -> Response:
    for info in registry.aliases.list(name):
        if info.alias == alias:
            return etag_response(request, info, str(info.generation))
    raise NotFound(f"{name} has no alias of that name")


@ROUTES.put(ONE)
def move(
    request: Request,
    response: Response,
    name: Name,
    alias: str,
    body: AliasMoveRequest,
    registry: IdempotentRegistry,
) -> AliasInfo:
    """Needs `If-Match: "<generation>"`, or `If-None-Match: *` for an alias that is not there yet."""
    moved = registry.aliases.move(name, alias, body.to, if_match_generation(request))
    response.headers["ETag"] = f'"{moved.generation}"'
    return moved


@ROUTES.delete(ONE, status_code=204)
def remove(request: Request, name: Name, alias: str, registry: CallersRegistry) -> None:
    """Needs `If-Match: "<generation>"`."""
    was = if_match_generation(request)
    if was is None:
        raise HttpProblem(428, 'say what you saw: If-Match: "<generation>"')
    registry.aliases.remove(name, alias, was)
