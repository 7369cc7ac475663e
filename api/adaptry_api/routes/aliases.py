"""Aliases: moved by compare-and-swap. The `ETag` of an alias is its generation."""

from __future__ import annotations

from fastapi import Request, Response
from pydantic import BaseModel, Field

from adaptry.core.digest import Digest
from adaptry.core.gates import MAX_CONDITION
from adaptry.registry import protocol
from adaptry.registry.aliases import MoveRequest
from adaptry.registry.records import AliasInfo
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import SeenGeneration, SeenOrAbsent, etag_response
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Name

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/aliases", "aliases")
ONE = "/{alias}"


class AliasMoveRequest(BaseModel, extra="forbid"):
    """The revision that the alias is to name. `condition` applies in addition to its policies; `override` is
    the reason for overriding them.
    """

    to: Digest
    condition: str | None = Field(default=None, min_length=1, max_length=MAX_CONDITION)
    override: str | None = Field(default=None, min_length=3, max_length=1024)


@ROUTES.get("")
def list_aliases(name: Name, registry: CallersRegistry) -> tuple[AliasInfo, ...]:
    """List an adapter's aliases and the versions they name."""
    return registry.aliases.list(name)


@ROUTES.get(ONE, response_model=AliasInfo)
def get_alias(request: Request, name: Name, alias: str, registry: CallersRegistry) -> Response:
    """Get an alias and the version that it names.

    The `ETag` is the alias's generation, which a move needs.
    """
    info = registry.aliases.get(name, alias)
    return etag_response(request, info, str(info.generation))


@ROUTES.put(ONE)
def move_alias(
    response: Response,
    name: Name,
    alias: str,
    body: AliasMoveRequest,
    was: SeenOrAbsent,
    registry: IdempotentRegistry,
) -> AliasInfo:
    """Move an alias to another version, or create it.

    The conditions of its policies must be met, otherwise the response is 422 and lists those that are not.
    `override` requires the right `policy.override`.

    `If-Match: "<generation>"` is required, or `If-None-Match: *` for a new alias. If someone else has moved
    the alias since, the response is 409 and nothing changes.
    """
    request = MoveRequest(condition=body.condition, override=body.override)
    moved = registry.aliases.move(name, alias, body.to, was, request)
    response.headers["ETag"] = f'"{moved.generation}"'
    return moved


@ROUTES.delete(ONE, status_code=204)
def delete_alias(name: Name, alias: str, was: SeenGeneration, registry: CallersRegistry) -> None:
    """Delete an alias.

    `If-Match: "<generation>"` is required.
    """
    registry.aliases.remove(name, alias, was)
