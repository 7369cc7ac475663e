"""Errors as responses: one table from class to status, one form (`application/problem+json`, RFC 9457).

Clients rely on `code`, which is stable; `detail` is a sentence for people; `request` finds the line in the
log. Tracebacks are never sent, and input only as quoted in our own sentence.
"""

from __future__ import annotations

import http
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from adaptry.core import errors
from adaptry.core.errors import AdaptryError
from adaptry.core.validation import describe_fault
from adaptry.registry import protocol
from adaptry_api.denials import set_denial_reason

STATUS: dict[type[AdaptryError], int] = {
    errors.Invalid: 400,
    errors.InvalidManifest: 422,
    errors.InvalidConfig: 422,
    errors.InvalidWeights: 422,
    errors.Unsupported: 415,
    errors.TooLarge: 413,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.OffsetMismatch: 416,
    errors.CheckFailed: 422,
    errors.ProtocolMismatch: 426,
    errors.Unavailable: 503,
    errors.StorageFull: 507,
    errors.Busy: 429,
    errors.MissingDependency: 501,
    errors.CorruptData: 500,
    AdaptryError: 500,
}

INTERNAL = "internal error; the server's log has the details under the request's id"
_CODES = {
    400: errors.Invalid.code,
    404: errors.NotFound.code,
    405: "method_not_allowed",
    408: errors.Unavailable.code,
    412: errors.Conflict.code,
    413: errors.TooLarge.code,
    415: errors.Unsupported.code,
    428: "precondition_required",
    500: "internal",
}


LOG = logging.getLogger("adaptry.api")


class Problem(BaseModel):
    """An error: `code` for programs, `detail` for people, `request` to find it in the server's log.

    `offset`: where an upload continues (with 416 only).
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    request: str
    offset: int | None = None


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": what,
        "content": {protocol.PROBLEM: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}},
    }
    for status, what in {
        "4XX": "The request is refused.",
        "5XX": "The server cannot answer now, or failed.",
    }.items()
}
"""Added to every route's description; `description.document` adds the schema. (`Any`: OpenAPI's own JSON.)"""


class HttpProblem(HTTPException):
    """An HTTP error without a class in the core, such as a missing precondition or a slow body."""


class WrappedError(HTTPException):
    """Carries one of our errors out of body parsing: FastAPI lets only this type through."""

    def __init__(self, error: AdaptryError) -> None:
        super().__init__(status_of(error), error.public_message)
        self.error = error


def status_of(error: AdaptryError) -> int:
    return status_of_class(type(error))


def status_of_class(kind: type[AdaptryError]) -> int:
    """The status of the most precise class in the table."""
    return next(STATUS[one] for one in kind.__mro__ if one in STATUS)


def problem_response(
    request_id: str,
    status: int,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    offset: int | None = None,
) -> Response:
    """The response for an error, in the form that all errors share."""
    body = Problem(
        type=f"urn:adaptry:problem:{code}",
        title=http.HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        request=request_id,
        offset=offset,
    )
    return Response(body.model_dump_json(exclude_none=True), status, headers, media_type=protocol.PROBLEM)


def error_response(error: AdaptryError, request_id: str) -> Response:
    """The problem response for one of our errors. Details that callers must not see go to the log."""
    status = status_of(error)
    if error.public_message != error.message:
        LOG.warning("request %s: %s", request_id, error.message)
    headers: dict[str, str] = {}
    match error:
        case errors.OffsetMismatch(offset=offset):
            headers[protocol.OFFSET_HEADER] = str(offset)
            return problem_response(
                request_id, status, error.code, error.public_message, headers, offset=offset
            )
        case errors.Unauthenticated():
            headers["WWW-Authenticate"] = 'Bearer realm="adaptry"'
        case errors.Busy(retry_after=seconds):
            headers["Retry-After"] = str(math.ceil(seconds))
        case errors.Unavailable():
            headers["Retry-After"] = "1"
        case errors.ProtocolMismatch():
            headers["Upgrade"] = f"adaptry-api/{protocol.API}"
    return problem_response(request_id, status, error.code, error.public_message, headers)


def http_error_response(error: HTTPException, request_id: str) -> Response:
    """The problem response for an HTTP error, or for the error of ours that it carries."""
    if isinstance(error, WrappedError):
        return error_response(error.error, request_id)
    code = _CODES.get(error.status_code, "invalid" if error.status_code < 500 else "internal")
    detail, headers = error.detail, dict(error.headers or {})
    if error.status_code == 404:
        detail = "no endpoint has this path; GET /api/v1/openapi.json lists all endpoints"
    return problem_response(request_id, error.status_code, code, detail, headers)


def install_error_handlers(app: FastAPI, unserved: Callable[[Request, int], Awaitable[Response]]) -> None:
    """Turns every error that leaves a route into a problem response; `unserved` answers requests for
    addresses of the Hub protocol that have no route.
    """

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, AdaptryError)
        set_denial_reason(request.scope, error)
        return error_response(error, request_id(request))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        is_ours = isinstance(error, WrappedError) or request.url.path.startswith(f"{protocol.PREFIX}/")
        if error.status_code in (404, 405) and not is_ours:
            return await unserved(request, error.status_code)
        return http_error_response(error, request_id(request))

    async def unreadable(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(
            request_id(request), 422, errors.Invalid.code, describe_validation_error(error)
        )

    app.add_exception_handler(AdaptryError, ours)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, unreadable)


def request_id(request: Request) -> str:
    return str(request.state.request_id)


def describe_validation_error(error: RequestValidationError) -> str:
    """Describes a request's faults without quoting the request."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"cannot read the request: {where[:200]}: {describe_fault(first)[:500]}"
