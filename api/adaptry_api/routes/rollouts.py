"""Rollouts: at most one for an alias, changed by compare-and-swap. The `ETag` is its generation."""

from __future__ import annotations

from fastapi import Request, Response

from adaptry.core.digest import Digest
from adaptry.registry import protocol
from adaptry.registry.rollouts import RolloutChange, RolloutInfo, RolloutPlan
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.errors import HttpProblem
from adaptry_api.etags import if_match_generation
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Name

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/rollouts", "rollouts")


class RolloutStartRequest(RolloutPlan, extra="forbid"):
    """The alias that is to move, and the revision it is to move to."""

    alias: str
    to: Digest


class RolloutChangeRequest(RolloutChange, extra="forbid"):
    """On to the next step, or back."""


@ROUTES.get("")
def list_all(name: Name, registry: CallersRegistry) -> tuple[RolloutInfo, ...]:
    """The newest 50, newest first."""
    return registry.rollouts.list(name)


@ROUTES.post("", status_code=201)
def start(
    name: Name, body: RolloutStartRequest, response: Response, registry: IdempotentRegistry
) -> RolloutInfo:
    begun = registry.rollouts.start(
        name, body.alias, body.to, RolloutPlan(steps=body.steps, every=body.every)
    )
    response.headers["ETag"] = f'"{begun.generation}"'
    return begun


@ROUTES.patch("/{alias}")
def change(
    request: Request,
    response: Response,
    name: Name,
    alias: str,
    body: RolloutChangeRequest,
    registry: CallersRegistry,
) -> RolloutInfo:
    """Needs `If-Match: "<generation>"`; at 100 % the alias moves."""
    was = if_match_generation(request)
    if was is None:
        raise HttpProblem(428, 'say what you saw: If-Match: "<generation>"')
    changed = registry.rollouts.change(name, alias, RolloutChange(to=body.to, reason=body.reason), was)
    response.headers["ETag"] = f'"{changed.generation}"'
    return changed
