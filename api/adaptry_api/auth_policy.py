"""Who may call a route: every route declares it, or the application does not start.

A route names its access rule by depending on one of the functions in `ACCESS_RULES`, or on a `RequireGrant`;
what the caller may see and do beyond that is for the registry that acts for them. A route without an access
rule raises when it is made, and `check_routes` raises for one that came in another way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, cast

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import TypeAdapter
from starlette.responses import Response

from adaptry.core.errors import Invalid, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.registry import protocol
from adaptry.registry.interface import Registry
from adaptry_api import errors
from adaptry_api.app_state import AppState
from adaptry_api.bodies import ANONYMOUS_JSON_LIMIT, REPORT_VALUES, StrictRequest
from adaptry_api.grants import Granted


def app_state_of(request: Request) -> AppState:
    """The registry's data, opened when the application was made."""
    return cast(AppState, request.app.state.adaptry)


async def public() -> None:
    """Open to everyone: for routes that reveal nothing about anyone."""


_BEARER = HTTPBearer(auto_error=False, description="A token: `adaptry token create` makes one.")


async def identify(request: Request) -> Identity:
    """The identity of the request's token; looked up once per request. Raises `Unauthenticated`."""
    known = getattr(request.state, "identity", None)
    if known is None:
        known = await app_state_of(request).authenticator.identify(request.headers.get("authorization"))
        request.state.identity = known
    return cast(Identity, known)


async def caller(
    request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Identity:
    """The identity of the token. Raises `Unauthenticated`."""
    return await identify(request)


async def administrator(identity: Annotated[Identity, Depends(caller)]) -> Identity:
    """Raises `PermissionDenied` for everybody else."""
    if not identity.may_administer:
        raise PermissionDenied(f"{identity.name} may not do this; it takes an admin token for all namespaces")
    return identity


@dataclass(frozen=True, slots=True)
class GrantContext(Generic[Granted]):
    """The grant, and the registry acting for the identity that it was given to."""

    grant: Granted
    registry: Registry


class RequireGrant(Generic[Granted]):
    """An access rule: admits grants of that kind, signed by us, as bearer token or the address's `grant`."""

    def __init__(self, kind: type[Granted]) -> None:
        self._kind = kind

    async def __call__(self, request: Request) -> GrantContext[Granted]:
        """Raises `Unauthenticated`."""
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            shown = request.query_params.get("grant", "")
        state = app_state_of(request)

        def look_up() -> GrantContext[Granted]:
            grant = state.signer.verify(self._kind, shown.strip(), time.time())
            return GrantContext(grant, state.registry(state.identity_of_token(grant.by)))

        return await to_thread.run_sync(look_up)


ACCESS_RULES = frozenset({public, caller, administrator})
PUBLIC = Depends(public)
ADMINISTRATOR = Depends(administrator)


async def registry(request: Request, identity: Annotated[Identity, Depends(caller)]) -> Registry:
    """The registry, acting for the caller."""
    return app_state_of(request).registry(identity)


Caller = Annotated[Identity, Depends(caller)]
CallersRegistry = Annotated[Registry, Depends(registry)]


class GuardedRoute(APIRoute):
    """A route that states who may call it and reads its body strictly."""

    # (`Any`: FastAPI's own options, passed on.)
    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if not has_access_rule(self):
            raise TypeError(
                f"the route {path} does not say who may call it: depend on one of auth_policy.ACCESS_RULES"
            )

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        asks_who = any(dependant.call is caller for dependant in _all(self.dependant))
        limit = protocol.JSON_LIMIT if asks_who else ANONYMOUS_JSON_LIMIT
        values = {"values": REPORT_VALUES} if self.path.startswith(f"{protocol.PREFIX}/workers") else {}
        body = self.body_field.field_info.annotation if self.body_field else None
        kind = TypeAdapter(body) if body is not None else None
        ours = self.path.startswith(f"{protocol.PREFIX}/")  # the Hub's clients say what we need not know
        known = {field.alias for one in (self.dependant, *_all(self.dependant)) for field in one.query_params}

        async def strictly(request: Request) -> Response:
            if asks_who:
                await identify(request)  # before FastAPI reads a body that a stranger sent
            if ours and (unknown := request.query_params.keys() - known):
                takes = f"there are {', '.join(sorted(known))}" if known else "it takes none"
                raise Invalid(f"not a parameter of this address: {min(unknown)[:80]!a} ({takes})")
            parse_slots = app_state_of(request).parse_slots
            return await handle(
                StrictRequest(request.scope, request.receive, parse_slots, limit, kind=kind, **values)
            )

        return strictly


def guarded_router(prefix: str = "", tag: str | None = None) -> APIRouter:
    """A router whose routes are all guarded."""
    return APIRouter(
        prefix=prefix, tags=[tag] if tag else None, route_class=GuardedRoute, responses=errors.RESPONSES
    )


def has_access_rule(route: APIRoute) -> bool:
    """Whether the route depends, directly or not, on an access rule."""
    calls = [dependant.call for dependant in _all(route.dependant)]
    return any(isinstance(call, RequireGrant) or call in ACCESS_RULES for call in calls)


def check_routes(app: FastAPI) -> None:
    """Raises `TypeError` for a route without an access rule."""
    for route in app.routes:
        if not isinstance(route, APIRoute) or not has_access_rule(route):
            raise TypeError(f"{route} does not say who may call it")


def _all(dependant: Dependant) -> Iterator[Dependant]:
    for inner in dependant.dependencies:
        yield inner
        yield from _all(inner)
