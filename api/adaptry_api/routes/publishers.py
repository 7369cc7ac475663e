"""Issuers of ID tokens, and the publishers of adapters: CI jobs that push without a stored token."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request

from adaptry.registry import protocol
from adaptry.registry.publishers import IssuerInfo, IssuerRequest, PublisherInfo, PublisherRequest
from adaptry_api.auth_policy import CallersRegistry, app_state_of, guarded_router
from adaptry_api.routes.parameters import Name

ISSUERS = guarded_router(f"{protocol.PREFIX}/issuers", "publishers")
ROUTES = guarded_router(f"{protocol.PREFIX}/adapters/{{namespace}}/{{name}}/publishers", "publishers")


@ISSUERS.post("", status_code=201)
def add_issuer(registry: CallersRegistry, body: IssuerRequest) -> IssuerInfo:
    """Trust an issuer of ID tokens for CI jobs. Requires an administrator."""
    return registry.publishers.add_issuer(body)


@ISSUERS.get("")
def list_issuers(registry: CallersRegistry) -> tuple[IssuerInfo, ...]:
    """List the trusted issuers, in name order."""
    return registry.publishers.list_issuers()


@ISSUERS.delete("/{issuer}", status_code=204)
def remove_issuer(registry: CallersRegistry, issuer: str) -> None:
    """Stop trusting an issuer that no publisher uses. Requires an administrator."""
    registry.publishers.remove_issuer(issuer)


@ROUTES.post("", status_code=201)
def add_publisher(registry: CallersRegistry, name: Name, body: PublisherRequest) -> PublisherInfo:
    """Let CI jobs push to an adapter, which need not exist yet.

    Requires `token.manage` and `member.manage` in the namespace, and `push` on the adapter. A job exchanges
    its ID token for a token at `POST /oauth/token`.
    """
    return registry.publishers.add(name, body)


@ROUTES.get("")
def list_publishers(registry: CallersRegistry, name: Name) -> tuple[PublisherInfo, ...]:
    """List the publishers of an adapter, oldest first."""
    return registry.publishers.list(name)


@ROUTES.delete("/{id}", status_code=204)
def remove_publisher(
    request: Request, registry: CallersRegistry, name: Name, id: Annotated[int, Path(ge=1, lt=2**63)]
) -> None:
    """Remove a publisher. Tokens of its jobs are refused within five seconds."""
    registry.publishers.remove(name, id)
    app_state_of(request).authenticator.clear_cache()
