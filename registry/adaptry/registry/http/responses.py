"""Turns a server's response into a value, or into the error that a local registry would raise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from adaptry.core import strictjson
from adaptry.core.errors import (
    AdaptryError,
    Busy,
    Invalid,
    NotFound,
    OffsetMismatch,
    PermissionDenied,
    ProtocolMismatch,
    TooLarge,
    Unauthenticated,
    Unavailable,
    by_code,
)
from adaptry.registry import protocol

Answer = TypeVar("Answer")

_PROBLEM_LIMITS = strictjson.JsonLimits(size=64 << 10)
_BY_STATUS: Mapping[int, type[AdaptryError]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    407: Unavailable,
    408: Unavailable,
    413: TooLarge,
    429: Busy,
}


_ABOUT_OBJECTS = (NotFound, PermissionDenied, Invalid)
"""Errors that only an Adaptry server may raise: a proxy without a server behind it answers 404 for objects
that exist, and a worker must not unload them for that."""


_UNKNOWN_PARAMETER = "not a parameter of this endpoint"
"""The beginning of a server's answer to a parameter that it does not know. Users choose none of them."""


class _Problem(BaseModel):
    """`application/problem+json` (RFC 9457) with our stable code."""

    code: str
    detail: str
    offset: int = 0


def parse_response(kind: TypeAdapter[Answer], body: bytes, url: str) -> Answer:
    """Parses `body` as `kind`. Raises `ProtocolMismatch` if this version cannot read it."""
    try:
        return kind.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][:4]) or "the whole answer"
        raise ProtocolMismatch(
            f"this adaptry cannot read the response of {url} ({where}: {first['msg']}): "
            "upgrade the older of the two"
        ) from None


def parse_error(status: int, headers: Mapping[str, str], body: bytes, url: str) -> AdaptryError:
    """The error for a response with a status of 300 or more."""
    if headers.get("Content-Type", "").startswith(protocol.PROBLEM):
        try:
            problem = _Problem.model_validate(strictjson.loads(body, _PROBLEM_LIMITS, "the answer"))
        except (Invalid, ValidationError):
            return Unavailable(f"{url} answered {status} in an unreadable form; try again")
        kind = by_code().get(problem.code) or _kind_of(status)
        if problem.detail.startswith(_UNKNOWN_PARAMETER):
            return kind(  # the caller then asks again as an older server expects
                f"{url} is of another version than this adaptry ({problem.detail}): upgrade the older of the"
                " two"
            )
        if issubclass(kind, OffsetMismatch):
            return kind(problem.detail, problem.offset)
        if issubclass(kind, Busy):
            return kind(problem.detail, _seconds(headers.get("Retry-After")))
        return kind(problem.detail)
    if status < 400:
        return Unavailable(
            f"{url} redirects to {headers.get('Location', 'elsewhere')[:200]!r}; use that address"
        )
    kind = _kind_of(status)
    if protocol.API_HEADER not in headers and issubclass(kind, _ABOUT_OBJECTS):
        kind = Unavailable
    sentence = (
        f"{url} answered {status}, but not like an Adaptry server; is the address right, or does a proxy "
        "answer in its place?"
    )
    return kind(sentence, _seconds(headers.get("Retry-After"))) if issubclass(kind, Busy) else kind(sentence)


def _kind_of(status: int) -> type[AdaptryError]:
    return _BY_STATUS.get(status) or (Unavailable if status >= 500 else Invalid)


def _seconds(retry_after: str | None) -> float:
    """The seconds in Retry-After. A date, which RFC 9110 also allows, is ignored."""
    text = retry_after or ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else Busy("").retry_after
