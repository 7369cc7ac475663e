"""Groups and users of the identity provider."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from adaptry.registry import protocol
from adaptry.registry.sso import (
    ExternalUserInfo,
    ExternalUserRequest,
    ProviderGroupInfo,
    ProviderGroupRequest,
)
from adaptry_api.auth_policy import CallersRegistry, app_state_of, guarded_router

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
def link_external_user(registry: CallersRegistry, body: ExternalUserRequest) -> ExternalUserInfo:
    """Let a user of the identity provider sign in as an existing user.

    Requires an administrator.
    """
    return registry.sso.link_user(body)


@ROUTES.get("/users")
def list_external_users(registry: CallersRegistry) -> tuple[ExternalUserInfo, ...]:
    """List the users who are linked or have signed in.

    Requires an administrator.
    """
    return registry.sso.list_users()
