"""Access rules of routes: every route declares one, or the application does not start.

A route names its access rule by depending on one of the functions in `ACCESS_RULES`, or on a `RequireGrant`;
beyond that, the registry acting for the caller decides what the caller may see and do. Creating a route
without an access rule raises an error, and `check_routes` raises one for routes added in another way.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import cached_property
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, cast
from urllib.parse import unquote

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import TypeAdapter
from starlette.responses import Response

from adaptry.core.errors import Invalid, PermissionDenied, Unauthenticated
from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry import protocol
from adaptry.registry.interface import Registry
from adaptry_api import errors
from adaptry_api.app_state import AppState
from adaptry_api.bodies import ANONYMOUS_JSON_LIMIT, REPORT_VALUES, StrictRequest
from adaptry_api.route_threads import in_own_threads, use_route_threads
from adaptry_api.sessions import has_session_cookie, session_identity
from adaptry_api.signed_grants import Granted


def app_state_of(request: Request) -> AppState:
    """The registry's data, opened when the application was made."""
    return cast(AppState, request.app.state.adaptry)


async def public() -> None:
    """Open to everyone: for routes that reveal nothing about anyone."""


_BEARER = HTTPBearer(
    scheme_name="token", auto_error=False, description="`adaptry token create` makes a token."
)


async def identify(request: Request) -> Identity:
    """The identity of the request's token; looked up once per request. Raises `Unauthenticated`."""
    state = request.scope.setdefault("state", {})
    known = state.get("identity")
    if known is None:
        authenticator = app_state_of(request).authenticator
        known = state["identity"] = await authenticator.identify(request.headers.get("authorization"))
    return cast(Identity, known)


async def admit(request: Request, find: Callable[[Request], Awaitable[Identity]] = identify) -> Identity:
    """The identity of the caller, after counting its request. Raises `Unauthenticated`, `TooManyRequests`."""
    identity = await find(request)
    namespace = unquote(request.path_params.get("namespace", ""))  # the Hub's path, as sent
    app_state_of(request).request_limits.admit(identity, namespace or None)
    return identity


async def caller(
    request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Identity:
    """The identity of the token. Raises `Unauthenticated`."""
    return await identify(request)


GATEWAY_HEADER = "Adaptry-Gateway-Token"


async def gateway(
    request: Request,
    token: Annotated[
        str | None, Header(alias=GATEWAY_HEADER, max_length=512, description="The gateway's own token.")
    ] = None,
) -> Identity:
    """The identity of a gateway, which forwards a user's request with the user's `Authorization` and adds the
    gateway's token in another header. Raises `Unauthenticated`, `TooManyRequests`.
    """
    state = app_state_of(request)
    if token is None:
        raise Unauthenticated(f"the gateway must send its own token in the header {GATEWAY_HEADER}")
    request.state.identity = identity = await state.authenticator.identify(f"Bearer {token}")
    state.request_limits.admit(identity, None)
    return identity


async def administrator(identity: Annotated[Identity, Depends(caller)]) -> Identity:
    """The identity, if it is an administrator's. Raises `PermissionDenied` otherwise."""
    if not identity.may_administer:
        raise PermissionDenied(
            f"{identity.name} may not do this; it requires an admin token for all namespaces"
        )
    return identity


async def visitor(request: Request) -> Identity:
    """The identity of the browser's session, or else of the request's token, looked up once per request: the
    access rule of pages. Raises `Unauthenticated`.
    """
    known = getattr(request.state, "identity", None)
    if known is None:
        known = request.state.identity = await visitor_now(request)
    return cast(Identity, known)


async def visitor_now(request: Request) -> Identity:
    """Like `visitor`, but looks the identity up again, for responses that stay open. Raises
    `Unauthenticated`.
    """
    state, shown = app_state_of(request), request.headers.get("authorization")
    if shown is None and has_session_cookie(request):
        known = await to_thread.run_sync(session_identity, state, request)
        if known is not None:
            return known
    return await state.authenticator.identify(shown)


@dataclass(frozen=True, slots=True)
class GrantContext(Generic[Granted]):
    """The grant, and the registry acting for the identity that the grant was issued to."""

    grant: Granted
    registry: Registry


class RequireGrant(Generic[Granted]):
    """An access rule: admits our signed grants of this kind, as a bearer token or in the query's `grant`.

    `request.state.grant` is set once the grant is verified, even if the token that it was issued to is
    refused.
    """

    def __init__(self, kind: type[Granted]) -> None:
        self._kind = kind

    async def __call__(self, request: Request) -> GrantContext[Granted]:
        """Verifies the request's grant. Raises `Unauthenticated`."""
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            shown = request.query_params.get("grant", "")
        state = app_state_of(request)

        def look_up() -> GrantContext[Granted]:
            request.state.grant = grant = state.signer.verify(self._kind, shown.strip(), time.time())
            request.state.identity = identity = state.identity_of_token(grant.by)
            return GrantContext(grant, state.registry(identity))

        return await to_thread.run_sync(look_up)


ACCESS_RULES = frozenset({public, caller, gateway, administrator, visitor})
PUBLIC = Depends(public)
ADMINISTRATOR = Depends(administrator)


async def visitors_registry(request: Request, identity: Annotated[Identity, Depends(visitor)]) -> Registry:
    """The registry, with the rights of a page's visitor."""
    return app_state_of(request).registry(identity)


async def registry(request: Request, identity: Annotated[Identity, Depends(caller)]) -> Registry:
    """The registry, acting for the caller."""
    return app_state_of(request).registry(identity)


async def registry_of_gateway(request: Request, identity: Annotated[Identity, Depends(gateway)]) -> Registry:
    """The registry, acting for the gateway."""
    return app_state_of(request).registry(identity)


Caller = Annotated[Identity, Depends(caller)]
CallersRegistry = Annotated[Registry, Depends(registry)]
GatewaysRegistry = Annotated[Registry, Depends(registry_of_gateway)]
Visitor = Annotated[Identity, Depends(visitor)]
VisitorsRegistry = Annotated[Registry, Depends(visitors_registry)]


QuickAnswer = Callable[[Request, Identity], Awaitable[Response]]
"""A function that answers a request of its caller."""


class AnswerInMemory(NamedTuple):
    """A complete response, which the same caller may get again until the next commit; for HEAD, without a
    body. `on_sending` is called each time before it is sent, and raises an error if it may no longer be sent.
    `depends_on_catalog`: whether a commit can change it.
    """

    response: Response
    on_sending: Callable[[], object] | None = None
    depends_on_catalog: bool = True


ImmediateAnswer = Callable[[Request, Identity], AnswerInMemory | None]
"""A function that answers from memory, without waiting for anything; None if it cannot."""
_QUICK = "adaptry_quick_answer"
_IMMEDIATE = "adaptry_immediate_answer"
_PLAIN = "__adaptry_plain__"
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])


def with_quick_answer(
    answer: QuickAnswer,
    is_plain: Callable[[Request], bool] = lambda request: True,
    immediate: ImmediateAnswer | None = None,
) -> Callable[[Endpoint], Endpoint]:
    """Gives a frequently called route a quick answer: `quick_routes` calls `answer` without FastAPI, which
    takes longer to parse the request than `answer` takes to run. `is_plain`: whether `answer` understands the
    parameters of a request; if not, FastAPI parses and answers it. If there is an `immediate`,
    `immediate_answers` tries it first.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _QUICK, answer)
        setattr(endpoint, _PLAIN, is_plain)
        setattr(endpoint, _IMMEDIATE, immediate)
        return endpoint

    return mark


class GuardedRoute(APIRoute):
    """A route with an access rule, which parses its body strictly."""

    # `Any`: FastAPI's own options, passed on.
    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, in_own_threads(endpoint, options.get("methods") or ()), **options)
        if not has_access_rule(self):
            raise TypeError(f"the route {path} has no access rule: depend on one of auth_policy.ACCESS_RULES")

    @property
    def quick_answer(self) -> QuickAnswer | None:
        return getattr(self.endpoint, _QUICK, None)

    def is_plain(self, request: Request) -> bool:
        """Whether the route's quick answer understands the request's parameters."""
        return bool(getattr(self.endpoint, _PLAIN)(request))

    async def run_quick_answer(self, request: Request, answer: QuickAnswer) -> Response:
        """Calls `answer` after the same checks as for any other request of this route."""
        identity = await admit(request) if self._asks_who else ANONYMOUS
        self._require_known_parameters(request)
        use_route_threads(app_state_of(request).route_threads, request.scope)
        return await answer(request, identity)

    def answer_from_memory(self, request: Request, identity: Identity | None) -> AnswerInMemory | None:
        """The answer from memory for this caller (`identity` is None if unknown). If the result is None, or
        any error is raised, the answer must be made in the usual way.
        """
        answer: ImmediateAnswer | None = getattr(self.endpoint, _IMMEDIATE, None)
        if answer is None:
            return None
        if self._asks_who:
            if identity is None:
                return None
            request.scope["state"]["identity"] = identity
        self._require_known_parameters(request)
        return answer(request, identity or ANONYMOUS)

    def _require_known_parameters(self, request: Request) -> None:
        """Raises `Invalid` if the query has an unknown parameter, unless the route ignores those."""
        if not request.scope["query_string"] or not self._refuses_unknown_parameters:
            return
        if unknown := request.query_params.keys() - self._query_parameters.keys():
            known = sorted(name for name, is_shown in self._query_parameters.items() if is_shown)
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise Invalid(f"not a parameter of this endpoint: {min(unknown)[:80]!a} ({takes})")

    @cached_property
    def _asks_who(self) -> bool:
        """Whether the route depends on the identity of the token."""
        return any(dependant.call is caller for dependant in _all(self.dependant))

    @cached_property
    def _refuses_unknown_parameters(self) -> bool:
        """False for the Hub protocol, whose clients send parameters that we ignore."""
        return self.path.startswith(f"{protocol.PREFIX}/")

    @cached_property
    def _query_parameters(self) -> dict[str, bool]:
        """Whether each is described; former names are not."""
        fields = (field for one in self._dependants for field in one.query_params)
        return {field.alias: getattr(field.field_info, "include_in_schema", True) for field in fields}

    @property
    def _dependants(self) -> tuple[Dependant, ...]:
        """All dependencies of the route, direct and indirect, including itself."""
        return (self.dependant, *_all(self.dependant))

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        asks_who = self._asks_who
        limit = protocol.JSON_LIMIT if asks_who else ANONYMOUS_JSON_LIMIT
        values = {"values": REPORT_VALUES} if self.path.startswith(f"{protocol.PREFIX}/workers") else {}
        body = self.body_field.field_info.annotation if self.body_field else None
        kind = TypeAdapter(body) if body is not None else None
        passes_on = any(dependant.call is gateway for dependant in _all(self.dependant))
        # Gateways send the parameters of the request that they pass on.
        ours = self._refuses_unknown_parameters and not passes_on
        is_public = any(dependant.call is public for dependant in _all(self.dependant))
        assert self.quick_answer is None or asks_who or is_public, "it requires the caller's identity"

        async def strictly(request: Request) -> Response:
            state = app_state_of(request)
            use_route_threads(state.route_threads, request.scope)
            if asks_who:
                await admit(request)  # before FastAPI parses a body sent without a valid token
            if ours:
                self._require_known_parameters(request)
            return await handle(
                StrictRequest(request.scope, request.receive, state.parse_slots, limit, kind=kind, **values)
            )

        return strictly


def guarded_router(prefix: str = "", tag: str | None = None) -> APIRouter:
    """A router whose routes all have an access rule. A route's function name becomes its operation id."""
    return APIRouter(
        prefix=prefix,
        tags=[tag] if tag else None,
        route_class=GuardedRoute,
        responses=errors.RESPONSES,
        generate_unique_id_function=lambda route: route.name,
    )


def has_access_rule(route: APIRoute) -> bool:
    """Whether the route depends, directly or not, on an access rule."""
    calls = [dependant.call for dependant in _all(route.dependant)]
    return any(isinstance(call, RequireGrant) or call in ACCESS_RULES for call in calls)


def check_routes(app: FastAPI) -> None:
    """Raises `TypeError` for a route without an access rule."""
    for route in app.routes:
        if not isinstance(route, APIRoute) or not has_access_rule(route):
            raise TypeError(f"{route} has no access rule")


def _all(dependant: Dependant) -> Iterator[Dependant]:
    for inner in dependant.dependencies:
        yield inner
        yield from _all(inner)
