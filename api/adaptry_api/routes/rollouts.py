"""Rollouts: at most one for an alias, changed by compare-and-swap. The `ETag` is its generation."""

from __future__ import annotations

from fastapi import Response

from adaptry.core.digest import Digest
from adaptry.registry import protocol
from adaptry.registry.rollouts import RolloutChange, RolloutInfo, RolloutPlan
from adaptry_api.auth_policy import CallersRegistry, guarded_router
from adaptry_api.etags import SeenGeneration
from adaptry_api.idempotency import IdempotentRegistry
from adaptry_api.routes.parameters import Name

ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/rollouts", "rollouts")


class RolloutStartRequest(RolloutPlan, extra="forbid"):
    """The alias to move, and the revision to move it to."""

    alias: str
    to: Digest


class RolloutChangeRequest(RolloutChange, extra="forbid"):
    """Whether to advance to the next step or to abort."""


@ROUTES.get("")
def list_rollouts(name: Name, registry: CallersRegistry) -> tuple[RolloutInfo, ...]:
    """List an adapter's latest 50 rollouts, newest first."""
    return registry.rollouts.list(name)


@ROUTES.post("", status_code=201)
def start_rollout(
    name: Name, body: RolloutStartRequest, response: Response, registry: IdempotentRegistry
) -> RolloutInfo:
    """Start moving an alias to another version, worker by worker.

    At most one rollout runs for an alias.
    """
    begun = registry.rollouts.start(
        name, body.alias, body.to, RolloutPlan(steps=body.steps, interval=body.interval)
    )
    response.headers["ETag"] = f'"{begun.generation}"'
    return begun


@ROUTES.patch("/{alias}")
def change_rollout(
    response: Response,
    name: Name,
    alias: str,
    body: RolloutChangeRequest,
    was: SeenGeneration,
    registry: CallersRegistry,
) -> RolloutInfo:
    """Advance a rollout to its next step, or abort it.

    `If-Match: "<generation>"` is required. At 100 % the alias moves.
    """
    changed = registry.rollouts.change(name, alias, RolloutChange(to=body.to, reason=body.reason), was)
    response.headers["ETag"] = f'"{changed.generation}"'
    return changed
