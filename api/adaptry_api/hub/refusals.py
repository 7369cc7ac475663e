"""Errors in the form that the Hub's clients parse: `X-Error-Code` for the kind, one line of text, a request
id.

A client derives its exception from these headers alone, and loaders, which probe for files that often do not
exist, continue only after the right exception.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from adaptry.core.errors import (
    AdaptryError,
    Busy,
    FileMissing,
    NotFound,
    PermissionDenied,
    RevisionNotFound,
    Unauthenticated,
    Withdrawn,
)
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName
from adaptry_api import errors
from adaptry_api.auth_policy import AnswerInMemory, GuardedRoute, QuickAnswer, app_state_of
from adaptry_api.denials import set_denial_reason
from adaptry_api.header_text import header_text
from adaptry_api.hub.name_case import NameCaseMismatch, canonical_id
from adaptry_api.route_threads import run_in_own_threads

MissingKind = Literal["RepoNotFound", "RevisionNotFound", "EntryNotFound"]

BAD_TOKEN = "Invalid credentials in Authorization header"
"""The exact text matters: with any other, a client reports a bad token as a missing repository."""

STALE_BRANCH = "The branch was updated since you opened this page. Please refresh and try again."
_SET_TOKEN = "set HF_TOKEN to a token of this registry (`adaptry token create NAME` creates one)"
_HEADER_LENGTH = 1000
_BUSY_SECONDS = 20
"""Seconds to retry after: a client tries five times, which should last longer than the two minutes after
which abandoned uploads free their slots.
"""


class HubNotFound(HTTPException):
    """A repository, revision or file does not exist, or the caller may not know that it exists.

    With `commit`, clients remember that this commit has no such file and do not request it again.
    """

    def __init__(self, what: MissingKind, text: str, commit: str | None = None) -> None:
        headers = {"X-Error-Code": what} | ({"X-Repo-Commit": commit} if commit else {})
        super().__init__(404, text, headers)


class HubRoute(GuardedRoute):
    """A route with an access rule that answers and refuses as the Hub does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            return await _answered(request, handle(request))

        return answered

    async def run_quick_answer(self, request: Request, answer: QuickAnswer) -> Response:
        return await _answered(request, super().run_quick_answer(request, answer))

    def answer_from_memory(self, request: Request, identity: Identity | None) -> AnswerInMemory | None:
        answer = super().answer_from_memory(request, identity)
        if answer is not None:
            _with_id(request, answer.response)
        return answer


async def _answered(request: Request, answer: Awaitable[Response]) -> Response:
    """The answer, or the refusal for its error."""
    try:
        response = await answer
    except AdaptryError as error:
        response = await _elsewhere(request, error) or _refusal(request, error)
    except errors.WrappedError as carried:
        response = _refusal(request, carried.error)
    except HTTPException as error:
        response = _answer(error.status_code, error.detail, dict(error.headers or {}))
    except RequestValidationError as error:
        response = _answer(400, errors.describe_validation_error(error), {})
    return _with_id(request, response)


def _with_id(request: Request, response: Response) -> Response:
    response.headers["X-Request-Id"] = errors.request_id(request)
    return response


def hub_router() -> APIRouter:
    """A router of `HubRoute`s. The OpenAPI description leaves them out, since the protocol is the Hub's."""
    return APIRouter(route_class=HubRoute, include_in_schema=False)


async def _elsewhere(request: Request, error: AdaptryError) -> Response | None:
    """A redirect to a renamed adapter, or to a repository whose name differs by case; clients follow it with
    method and body.
    """
    found = request.path_params
    identity = getattr(request.state, "identity", None)
    if type(error) not in (NotFound, NameCaseMismatch) or identity is None:
        return None
    if "word" in found:
        was = f"/{found['word']}"
    elif {"namespace", "name"} <= set(found):
        was = f"/{found['namespace']}/{found['name']}"
    else:
        return None

    def look_up() -> str | None:
        state, id = app_state_of(request), unquote(was.removeprefix("/"))
        with suppress(AdaptryError):
            if (to := state.registry(identity).adapters.renamed_to(AdapterName.parse(id))) is not None:
                return str(to)
        return canonical_id(state, identity, id)

    moved = await run_in_own_threads("reads", look_up)
    if moved is None:
        return None
    query = f"?{request.url.query}" if request.url.query else ""
    path = str(request.scope["path"]).replace(was, f"/{moved}", 1)
    return Response(status_code=307, headers={"Location": path + query})


def _refusal(request: Request, error: AdaptryError) -> Response:
    set_denial_reason(request.scope, error)
    headers: dict[str, str] = {}
    text = error.public_message
    match error:
        case Unauthenticated() if "authorization" in request.headers:
            headers["X-Error-Message"] = BAD_TOKEN
        case Unauthenticated() if "grant" in request.query_params:
            pass  # the refusal is about this URL's grant; another token would not help
        case Unauthenticated():
            headers["X-Error-Code"] = "RepoNotFound"
            text = f"a token is needed: {_SET_TOKEN}"
        case Busy(retry_after=seconds):
            headers["Retry-After"] = str(max(math.ceil(seconds), _BUSY_SECONDS))
        case Withdrawn():
            # After any other 403 a client reports a failed connection and does not show our text.
            headers["X-Error-Code"] = "GatedRepo"
        case RevisionNotFound():
            headers["X-Error-Code"] = "RevisionNotFound"
        case FileMissing():
            headers["X-Error-Code"] = "EntryNotFound"
        case NotFound():
            headers["X-Error-Code"] = "RepoNotFound"
            if _is_anonymous(request):
                text += f"; if it is private, {_SET_TOKEN}"
        case PermissionDenied() if _is_anonymous(request):
            text = f"callers without a token may only read: {_SET_TOKEN}"
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="adaptry"'
    # Every client of the Hub tries again after a 503; older ones give up after a 429.
    status = 503 if isinstance(error, Busy) else errors.status_of(error)
    return _answer(
        400 if status in (415, 422) else status, text, headers
    )  # clients show the text of this status best


def _is_anonymous(request: Request) -> bool:
    identity: Identity | None = getattr(request.state, "identity", None)
    return identity is not None and identity.is_anonymous


def _answer(status: int, text: str, headers: dict[str, str]) -> Response:
    """The response for a refusal. A client shows the text of the body, and that of the header if it differs;
    for some responses, only the header's.
    """
    line = " ".join(text.split())
    if status in (401, 403) or (line.isascii() and len(line) <= _HEADER_LENGTH):
        headers = {"X-Error-Message": header_text(line, _HEADER_LENGTH), **headers}
    return JSONResponse({"error": line}, status, headers)
