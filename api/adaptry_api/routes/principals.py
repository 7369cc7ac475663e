"""Principals and groups."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request

from adaptry.registry import protocol
from adaptry.registry.access import (
    GroupInfo,
    GroupRequest,
    MembershipChange,
    PrincipalChange,
    PrincipalInfo,
    PrincipalKind,
    PrincipalRequest,
)
from adaptry.registry.records import Page
from adaptry_api.auth_policy import CallersRegistry, app_state_of, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit

ROUTES = guarded_router(protocol.PREFIX, "principals")
_Namespace = Annotated[
    str | None, Query(max_length=96, description="Only the service accounts of this namespace.")
]
_Kinds = Annotated[list[PrincipalKind], Query(description="Only principals of these kinds.")]
Group = Annotated[str, Path(alias="group", max_length=64)]


@ROUTES.get("/principals")
def list_principals(
    registry: CallersRegistry,
    kind: _Kinds = [],  # noqa: B006
    namespace: _Namespace = None,
    prefix: Annotated[str, Query(max_length=193, description="The beginning of the name.")] = "",
    group: Annotated[str | None, Query(max_length=64, description="Only those in this group.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[PrincipalInfo]:
    """List users, service accounts and workers, in name order.

    Administrators see all; others see themselves and the service accounts that they manage. Only
    administrators and a group's members may list the group.
    """
    return registry.principals.list(
        cursor, limit, kinds=kind, namespace=namespace, prefix=prefix, group=group
    )


@ROUTES.post("/principals", status_code=201)
def create_principal(registry: CallersRegistry, body: PrincipalRequest) -> PrincipalInfo:
    """Create a user, a service account or a worker.

    Service accounts require `token.manage` in their namespace; the others require an administrator.
    """
    return registry.principals.create(body.kind, body.name)


@ROUTES.patch("/principals")
def change_principal(request: Request, registry: CallersRegistry, body: PrincipalChange) -> PrincipalInfo:
    """Disable a principal, or enable it again.

    All servers of the registry refuse the tokens of a disabled principal within five seconds.
    """
    changed = registry.principals.set_disabled(body.name, body.is_disabled)
    app_state_of(request).authenticator.clear_cache()
    return changed


@ROUTES.get("/groups")
def list_groups(registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50) -> Page[GroupInfo]:
    """List groups with their first members, in name order.

    Administrators see all groups; others see those that they belong to.
    """
    return registry.principals.groups(cursor, limit)


@ROUTES.post("/groups", status_code=201)
def create_group(registry: CallersRegistry, body: GroupRequest) -> GroupInfo:
    """Create a group; administrators only."""
    return registry.principals.create_group(body.name)


@ROUTES.delete("/groups/{group}", status_code=204)
def delete_group(request: Request, registry: CallersRegistry, group: Group) -> None:
    """Delete a group and all grants to it; administrators only."""
    registry.principals.delete_group(group)
    app_state_of(request).authenticator.clear_cache()


@ROUTES.patch("/groups/{group}/members")
def change_group(
    request: Request, registry: CallersRegistry, group: Group, body: MembershipChange
) -> GroupInfo:
    """Add a principal to a group, or remove it; administrators only."""
    changed = registry.principals.set_membership(group, body.principal, body.is_member)
    app_state_of(request).authenticator.clear_cache()
    return changed
