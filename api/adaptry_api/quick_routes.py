"""Answers frequently called routes before FastAPI looks for a route.

FastAPI compares an address with each of its routes, and parses a request by the types of a function. That
takes several times as long as resolving an alias, and a seventh of the push of a small adapter. So the few
routes with a quick answer (`auth_policy.with_quick_answer`) are tried first. They remain FastAPI routes, with
an access rule and a description.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from starlette.convertors import PathConvertor, StringConvertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from adaptry.registry import protocol
from adaptry_api.auth_policy import GuardedRoute, QuickAnswer
from adaptry_api.errors import http_error_response, request_id

_TEXT = StringConvertor | PathConvertor
"""Path parameters that FastAPI passes to routes without conversion."""
_PREFIX = f"{protocol.PREFIX}/"
QuickRoute = tuple[GuardedRoute, QuickAnswer]


class QuickRoutes:
    """The middleware; it answers those of `routes` that have a quick answer. Our errors go to `Envelope`."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self.app = app
        self._routes: dict[tuple[str, bool], list[QuickRoute]] = defaultdict(list)
        for route in routes:
            if isinstance(route, GuardedRoute) and (answer := route.quick_answer):
                assert all(isinstance(one, _TEXT) for one in route.param_convertors.values()), route.path
                for method in route.methods or ():
                    self._routes[method, route.path.startswith(_PREFIX)].append((route, answer))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive) if scope["type"] == "http" else None
        found = self.find(request) if request else None
        if request is None or found is None:
            await self.app(scope, receive, send)
            return
        (route, answer), matched = found
        scope.update(matched)
        try:
            response = await route.run_quick_answer(request, answer)
        except HTTPException as error:
            response = http_error_response(error, request_id(request))
        await response(scope, receive, send)

    def find(self, request: Request) -> tuple[QuickRoute, Scope] | None:
        """The route with a quick answer that matches a request, and the values that the path adds to the
        scope.
        """
        scope = request.scope
        path: str = scope["path"]
        for quick in self._routes.get((scope["method"], path.startswith(_PREFIX)), ()):
            route = quick[0]
            match = route.path_regex.match(path)
            if match is not None and route.is_plain(request):
                # Equals the result of `route.matches`, in a third of the time.
                return quick, {"endpoint": route.endpoint, "path_params": match.groupdict(), "route": route}
        return None
