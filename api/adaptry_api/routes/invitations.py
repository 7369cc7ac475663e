"""Invitations of users, and their exchange for a first token."""

from __future__ import annotations

from fastapi import Request

from adaptry.registry import protocol
from adaptry.registry.access import CreatedToken, InvitationAcceptance, InvitationInfo, InvitationRequest
from adaptry.storage import invitations
from adaptry_api.auth_policy import PUBLIC, CallersRegistry, app_state_of, guarded_router

ROUTES = guarded_router(f"{protocol.PREFIX}/invitations", "tokens")


@ROUTES.post("", status_code=201)
def invite_user(registry: CallersRegistry, body: InvitationRequest) -> InvitationInfo:
    """Invite a user; the user is created if missing.

    The response has a code that the user exchanges for a first token (`adaptry login`). It can be used once,
    within some hours, and replaces the user's earlier codes. Requires an administrator.
    """
    return registry.principals.invite(body)


@ROUTES.post("/accept", status_code=201, dependencies=[PUBLIC])
def accept_invitation(request: Request, body: InvitationAcceptance) -> CreatedToken:
    """Exchange the code of an invitation for a token.

    Anyone who has the code may call this, without a token; the code works once. The response has the
    token's text, which cannot be shown again.
    """
    return invitations.accept(app_state_of(request).catalog, body.code.strip(), body.name)
