"""Responses for changeable objects: an `ETag` for conditional requests, and no caching."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from adaptry.core.errors import Invalid
from adaptry.core.value import FrozenValue
from adaptry_api.errors import HttpProblem

IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="The last `ETag` that the caller received, in quotation marks."),
]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="`*`: only if it does not exist yet.")
]

_CACHE_CONTROL = "private, no-cache"
_GENERATION = re.compile(r'"([0-9]{1,18})"')


def has_current(request: Request, tag: str) -> bool:
    """Whether `If-None-Match` names this `ETag`, or is `*` (RFC 9110 §13.1.2)."""
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or tag in known


class TaggedAnswer:
    """An answer about something that changes, encoded once: as JSON, and as 304 for a client that has it."""

    def __init__(self, value: BaseModel | FrozenValue) -> None:
        body = value.model_dump_json(by_alias=True).encode()
        self._tag = _tag(body)
        self._full = Response(body, headers=self._headers, media_type="application/json")
        self._unchanged: Response | None = None  # made when it is needed, since thousands of answers are kept

    def response(self, request: Request) -> Response:
        if not has_current(request, self._tag):
            return self._full
        if self._unchanged is None:
            self._unchanged = Response(status_code=304, headers=self._headers)
        return self._unchanged

    @property
    def _headers(self) -> dict[str, str]:
        return {"ETag": self._tag, "Cache-Control": _CACHE_CONTROL}


def etag_response(request: Request, value: BaseModel | FrozenValue, etag: str | None = None) -> Response:
    """`value` as JSON, or 304 if the caller already has it."""
    return etag_json(request, value.model_dump_json(by_alias=True).encode(), etag)


def etag_json(request: Request, body: bytes, etag: str | None = None) -> Response:
    """Like `etag_response`, for a value that is already JSON."""
    tag = f'"{etag}"' if etag else _tag(body)
    headers = {"ETag": tag, "Cache-Control": _CACHE_CONTROL}
    if has_current(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def require_unchanged(if_match: str | None, find: Callable[[], BaseModel | FrozenValue]) -> None:
    """Raises `HttpProblem` (412) if `If-Match` names another state than this one.

    This prevents edits based on an outdated page, but not two simultaneous edits: an adapter's texts have no
    generation.
    """
    if if_match is not None and if_match not in ("*", _tag(find().model_dump_json(by_alias=True).encode())):
        raise HttpProblem(412, "it has changed since you read it; read it again and retry")


async def _seen_generation(if_match: IfMatch = None) -> int:
    """The generation in `If-Match`. Raises `HttpProblem` (428) without it: a change must name the generation
    that it is based on.
    """
    if if_match is None:
        raise HttpProblem(428, 'send the generation that you read: If-Match: "<generation>"')
    return _generation(if_match)


async def _seen_or_absent(if_match: IfMatch = None, if_none_match: IfNoneMatch = None) -> int | None:
    """The generation in `If-Match`; None for `If-None-Match: *`. Raises `HttpProblem` (428) if both headers
    are missing.
    """
    if if_match is None and if_none_match is None:
        raise HttpProblem(
            428,
            'send If-Match: "<generation>" to change it, or If-None-Match: * to create it',
        )
    if if_match is None:
        if if_none_match != "*":
            raise Invalid("If-None-Match can only be * here")
        return None
    if if_none_match is not None:
        raise Invalid("send either If-Match or If-None-Match, not both")
    return _generation(if_match)


SeenGeneration = Annotated[int, Depends(_seen_generation)]
"""The generation that the caller read."""
SeenOrAbsent = Annotated[int | None, Depends(_seen_or_absent)]
"""The same; None if the caller expects that it does not exist (`If-None-Match: *`)."""


def _generation(if_match: str) -> int:
    found = _GENERATION.fullmatch(if_match)
    if found is None:
        raise Invalid('If-Match must be a generation in quotation marks, as in If-Match: "3"')
    return int(found[1])


def _tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'
