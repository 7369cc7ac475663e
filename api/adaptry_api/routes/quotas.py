"""Quotas: limits on storage and requests for namespaces and principals, and their use."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from adaptry.core.errors import Invalid
from adaptry.core.quotas import QuotaScope, QuotaSubject
from adaptry.registry import protocol
from adaptry.registry.quotas import QuotaInfo, QuotaRequest
from adaptry_api.auth_policy import CallersRegistry, app_state_of, guarded_router

ROUTES = guarded_router(f"{protocol.PREFIX}/quotas", "quotas")
Name = Annotated[
    str, Query(min_length=1, max_length=193, description="The namespace or principal, or `*` for every name.")
]


@ROUTES.get("")
def list_quotas(
    registry: CallersRegistry,
    scope: Annotated[
        QuotaScope | None,
        Query(description="Whether `name` is a namespace or a principal; required with `name`."),
    ] = None,
    name: Annotated[
        str | None, Query(min_length=1, max_length=193, description="The namespace or principal.")
    ] = None,
) -> tuple[QuotaInfo, ...]:
    """List quotas and their use.

    With a scope and a name, returns that quota, to members of the namespace, to the principal itself and to
    administrators. Otherwise, administrators get all quotas that are set, and others their own.
    """
    if (scope is None) != (name is None):
        raise Invalid("scope and name go together; send both or neither")
    subject = QuotaSubject(scope, name) if scope is not None and name is not None else None
    return registry.quotas.list(subject)


@ROUTES.put("")
def set_quota(request: Request, registry: CallersRegistry, body: QuotaRequest) -> QuotaInfo:
    """Set the limits of a namespace or a principal.

    They replace the limits that were set for the name; the name `*` stands for all names without their own.
    Requires an administrator. Stored files stay.
    """
    changed = registry.quotas.set(body)
    app_state_of(request).read_request_limits()
    return changed


@ROUTES.delete("", status_code=204)
def remove_quota(request: Request, registry: CallersRegistry, scope: QuotaScope, name: Name) -> None:
    """Remove the limits that were set for a name; the defaults apply again."""
    registry.quotas.remove(QuotaSubject(scope, name))
    app_state_of(request).read_request_limits()
