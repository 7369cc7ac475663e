"""Groups and users of the identity provider."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from adaptry.core.errors import Invalid
from adaptry.registry import protocol
from adaptry.registry.records import Page
from adaptry.registry.sso import (
    ExternalUserInfo,
    ExternalUserRequest,
    ProviderGroupInfo,
    ProviderGroupRequest,
)
from adaptry_api.app_state import AppState
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of, guarded_router
from adaptry_api.routes.parameters import Cursor, Limit

ROUTES = guarded_router(f"{protocol.PREFIX}/sso", "sign-in")


@ROUTES.put("/groups")
def map_provider_group(registry: CallersRegistry, body: ProviderGroupRequest) -> ProviderGroupInfo:
    """Map a group of the identity provider to a group here.

    Its members join or leave the group at every sign-in. This replaces an earlier mapping of the claim.
    Requires an administrator.
    """
    return registry.sso.map_group(body)


@ROUTES.get("/groups")
def list_provider_groups(registry: CallersRegistry) -> tuple[ProviderGroupInfo, ...]:
    """List the mapped groups of the identity provider.

    Requires an administrator.
    """
    return registry.sso.list_groups()


@ROUTES.delete("/groups", status_code=204)
def unmap_provider_group(
    request: Request,
    registry: CallersRegistry,
    claim: Annotated[
        str, Query(min_length=1, max_length=255, description="The group, as the provider's claim names it.")
    ],
) -> None:
    """Remove the mapping of a group.

    Its members stay in the group here. Requires an administrator.
    """
    registry.sso.unmap_group(claim)
    app_state_of(request).authenticator.clear_cache()


@ROUTES.put("/users")
def link_external_user(
    request: Request,
    registry: CallersRegistry,
    identity: Caller,
    body: ExternalUserRequest,
) -> ExternalUserInfo:
    """Let a user of the identity provider sign in as an existing user.

    `issuer` must be the server's provider (`--sso-issuer`). Requires an administrator.
    """
    if identity.may_administer:  # other callers are refused below
        _require_provider(app_state_of(request), body.issuer)
    return registry.sso.link_user(body)


def _require_provider(state: AppState, issuer: str) -> None:
    """Raises `Invalid` for an issuer other than the server's, since its users could not sign in."""
    if state.openid_provider is None:
        raise Invalid(
            "users cannot sign in here: the server has no identity provider; start it with --sso-issuer"
        )
    if issuer != state.openid_provider.issuer:
        raise Invalid(
            f"{issuer[:255]!a} is not the server's identity provider; its issuer is"
            f" {state.openid_provider.issuer}"
        )


@ROUTES.get("/users")
def list_external_users(
    registry: CallersRegistry, cursor: Cursor = None, limit: Limit = 50
) -> Page[ExternalUserInfo]:
    """List the users who are linked or have signed in, in name order.

    Requires an administrator.
    """
    return registry.sso.list_users(cursor, limit)
