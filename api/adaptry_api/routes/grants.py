"""Grants, members of namespaces, and explanations of access decisions."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Request

from adaptry.core.access.actions import Action
from adaptry.core.states import State
from adaptry.registry import protocol
from adaptry.registry.access import (
    AccessDecision,
    AccessQuery,
    AccountableChange,
    GrantInfo,
    GrantRequest,
    MemberChange,
    NamespaceMembers,
)
from adaptry.registry.records import Page
from adaptry_api.auth_policy import CallersRegistry, app_state_of, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit

ROUTES = guarded_router(protocol.PREFIX, "access")
Namespace = Annotated[str, Path(alias="namespace", max_length=96)]
_NamespaceQuery = Annotated[
    str | None, Query(max_length=96, description="Only grants that name this namespace.")
]
_WithMembers = Annotated[
    bool, Query(description="Include members' roles, which are grants in a whole namespace.")
]
_Principal = Annotated[
    str | None,
    Query(max_length=193, description="Only grants to this principal, without those to its groups."),
]


@ROUTES.get("/grants")
def list_grants(
    registry: CallersRegistry,
    namespace: _NamespaceQuery = None,
    principal: _Principal = None,
    with_members: _WithMembers = True,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[GrantInfo]:
    """List grants, oldest first.

    Administrators see all grants, holders of `member.manage` those about their namespace, and other callers
    their own.
    """
    return registry.grants.list(namespace, principal, cursor, limit, with_members=with_members)


@ROUTES.post("/grants", status_code=201)
def add_grant(request: Request, registry: CallersRegistry, body: GrantRequest) -> GrantInfo:
    """Grant a role or an action on a resource to a principal or a group.

    Requires `member.manage` in the namespace, and every action that is granted.
    """
    added = registry.grants.add(body)
    app_state_of(request).authenticator.clear_cache()
    return added


@ROUTES.delete("/grants/{id}", status_code=204)
def remove_grant(
    request: Request, registry: CallersRegistry, id: Annotated[int, Path(ge=1, lt=2**63)]
) -> None:
    """Revoke a grant.

    It takes effect in all servers of the registry within five seconds.
    """
    registry.grants.remove(id)
    app_state_of(request).authenticator.clear_cache()


@ROUTES.get("/namespaces/{namespace}/members")
def list_members(
    registry: CallersRegistry, namespace: Namespace, cursor: Cursor = None, limit: Limit = 50
) -> NamespaceMembers:
    """List a namespace's members, oldest first.

    The response has their roles, the user who is accountable for the namespace, and the cursor of the next
    page.
    """
    return registry.grants.members(namespace, cursor, limit)


@ROUTES.patch("/namespaces/{namespace}/members")
def change_member(
    request: Request, registry: CallersRegistry, namespace: Namespace, body: MemberChange
) -> NamespaceMembers:
    """Set the role of a member of a namespace, or remove a member.

    The member is a principal or a group; `role` null removes it.
    """
    changed = registry.grants.set_member(namespace, body)
    app_state_of(request).authenticator.clear_cache()
    return changed


@ROUTES.put("/namespaces/{namespace}/accountable")
def set_accountable(
    registry: CallersRegistry, namespace: Namespace, body: AccountableChange
) -> NamespaceMembers:
    """Name the user who is accountable for a namespace. This gives them no rights."""
    return registry.grants.set_accountable(namespace, body.principal)


@ROUTES.get("/access")
def explain_access(
    registry: CallersRegistry,
    principal: Annotated[str, Query(min_length=1, max_length=193)],
    action: Annotated[Action, Query(description="The action, such as `alias.move`.")],
    ref: Annotated[
        str,
        Query(
            min_length=1,
            max_length=300,
            description="An adapter (`acme/tone`), one of its aliases (`acme/tone@prod`), or a namespace.",
        ),
    ],
    state: Annotated[State | None, Query(description="For `state.set`: the new state.")] = None,
) -> AccessDecision:
    """Explain whether a principal may do something, and which grant decides.

    Callers may check their own access; administrators and holders of `member.manage` also that of others.
    """
    query = AccessQuery(principal=principal, action=action, ref=ref, state=state)
    return registry.grants.explain(query)
