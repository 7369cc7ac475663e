"""Answers about things that move: an `ETag` to ask again with, and never a stale copy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from fastapi import Request, Response
from pydantic import BaseModel

from adaptry.core.errors import Invalid
from adaptry_api.errors import HttpProblem

_GENERATION = re.compile(r'"([0-9]{1,18})"')


def etag_response(request: Request, value: BaseModel, etag: str | None = None) -> Response:
    """`value` as JSON, or 304 where the caller has it already."""
    body = value.model_dump_json(by_alias=True).encode()
    tag = f'"{etag}"' if etag else _tag(body)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def require_if_match(request: Request, find: Callable[[], BaseModel]) -> None:
    """Raises `HttpProblem` (412) where `If-Match` says that the caller saw another state than this one.

    It guards against an edit made on an old page, not against two at the same moment: an adapter's texts have
    no generation.
    """
    match = request.headers.get("if-match")
    if match is not None and match not in ("*", _tag(find().model_dump_json(by_alias=True).encode())):
        raise HttpProblem(412, "it has changed since you saw it; look again and retry")


def if_match_generation(request: Request) -> int | None:
    """The generation an alias or a state was seen at, from `If-Match`; None for `If-None-Match: *` (absent).

    Raises `HttpProblem` (428) where neither says: whoever moves something says from where.
    """
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is None and none_match is None:
        raise HttpProblem(
            428,
            'say what you saw: If-Match: "<generation>" to change it, or If-None-Match: * to create it',
        )
    if match is None:
        if none_match != "*":
            raise Invalid("If-None-Match can only be * here")
        return None
    found = _GENERATION.fullmatch(match)
    if found is None or none_match is not None:
        raise Invalid('If-Match is a generation in quotation marks, as in If-Match: "3"')
    return int(found[1])


def _tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'
