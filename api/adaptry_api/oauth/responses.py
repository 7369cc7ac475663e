"""Requests and errors of OAuth's token endpoint: parameters as a form or as JSON, and errors by their code.

Sources: RFC 6749 §5.2 (errors), RFC 8693 §2.2.2 (`invalid_target`). The specification sends forms; clients of
the Hub send JSON too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import JSONResponse

from adaptry.core import strictjson
from adaptry.core.errors import AdaptryError, Invalid
from adaptry_api.bodies import read_body

LIMIT = 16 << 10
_JSON = strictjson.JsonLimits(size=LIMIT, depth=2, nodes=64)
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
OAuthErrorCode = Literal[
    "invalid_request",
    "invalid_grant",
    "invalid_target",
    "unsupported_grant_type",
    "temporarily_unavailable",
    "authorization_pending",
    "slow_down",
    "access_denied",
    "expired_token",
]


class OAuthError(AdaptryError):
    """A refused request; `error` is the code that clients look at."""

    def __init__(self, error: OAuthErrorCode, message: str) -> None:
        super().__init__(message)
        self.error = error

    @property
    def response(self) -> JSONResponse:
        status = 503 if self.error == "temporarily_unavailable" else 400
        return JSONResponse(
            {"error": self.error, "error_description": self.public_message}, status, headers=NO_STORE
        )


class OAuthFailure(BaseModel):
    """An error in OAuth's form."""

    error: OAuthErrorCode
    error_description: str


OAUTH_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": OAuthFailure, "description": "The request is refused."},
    503: {"model": OAuthFailure, "description": "The answer is not known now; try again later."},
}
"""OpenAPI's description of the errors that are not problems. (`Any`: FastAPI's own type.)"""


async def read_parameters(request: Request) -> Mapping[str, str]:
    """The parameters of a request, each given once. Raises `OAuthError`, `TooLarge`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = await read_body(request, LIMIT)
    try:
        if kind == "application/json":
            found = strictjson.loads(data, _JSON, "the request")
        elif kind == "application/x-www-form-urlencoded":
            pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=32)
            found = dict(pairs)
            if len(found) != len(pairs):
                raise Invalid("a parameter is given twice")
        else:
            raise Invalid("send the parameters as a form or as JSON, with its Content-Type")
    except Invalid as error:
        raise OAuthError("invalid_request", error.message) from error
    except ValueError as error:
        raise OAuthError("invalid_request", "the form is malformed") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise OAuthError("invalid_request", "every parameter must be a string")
    return found


def body_description(names: Mapping[str, bool]) -> dict[str, Any]:
    """OpenAPI's description of parameters, and which of them are required. (`Any`: OpenAPI's own JSON.)"""
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": [name for name, is_required in names.items() if is_required],
    }
    kinds = ("application/json", "application/x-www-form-urlencoded")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


def required(parameters: Mapping[str, str], name: str) -> str:
    """Raises `OAuthError` for a missing parameter."""
    if not (value := parameters.get(name)):
        raise OAuthError("invalid_request", f"the parameter {name} is missing")
    return value
