"""Authorization of inference requests, for gateways in front of engines.

There are two forms: a question as JSON, and Envoy's `ext_authz` over HTTP, which passes on the request.
All denials are identical, whatever the reason.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Path, Request, Response
from pydantic import SecretStr

from adaptry.core import strictjson
from adaptry.core.errors import Invalid, PermissionDenied
from adaptry.core.stack_ref import weight_suffix
from adaptry.registry import protocol
from adaptry.registry.inference import (
    MAX_AGE,
    MAX_MODEL,
    MAX_TOKEN,
    InferenceDecision,
    InferenceRequest,
)
from adaptry_api.auth_policy import CallersRegistry, GatewaysRegistry, app_state_of, guarded_router
from adaptry_api.bodies import read_body, read_json
from adaptry_api.header_text import header_text
from adaptry_api.route_threads import reads, run_in_own_threads

ROUTES = guarded_router(protocol.PREFIX, "inference")
_CACHE_HEADERS = {"Cache-Control": f"private, max-age={MAX_AGE}"}
_LIMITS = strictjson.JsonLimits(size=protocol.JSON_LIMIT, depth=64, nodes=200_000)
"""Of a request to an engine: tools are nested schemas, and prompts may be lists of tokens."""
_DENIED = "no such model, or you may not use it"


@ROUTES.post("/authorize")
@reads
def authorize_inference(
    response: Response, registry: CallersRegistry, body: InferenceRequest
) -> InferenceDecision:
    """Decide whether the holder of a token may use a model.

    For gateways, with a token that has `inference.authorize` on each adapter of the model. `model` is a ref,
    or several with weights (`acme/tone+acme/facts=0.5`): the holder must be allowed to read each. Denials are
    the same for unknown tokens, for models that do not exist, and for those that are private or withdrawn.
    The response may be cached for as long as `Cache-Control` says, at most five seconds.
    """
    decision = registry.grants.authorize(body)
    response.headers.update(_CACHE_HEADERS)
    return decision


@ROUTES.post("/authorize/ext-authz/{path:path}", response_class=Response)
async def authorize_request(
    request: Request,
    registry: GatewaysRegistry,
    path: Annotated[str, Path(max_length=2048, description="The path of the request; it is not used.")],
) -> Response:
    """Decide on a request for Envoy (`ext_authz` over HTTP).

    Envoy sends the request's `Authorization` and body (`with_request_body`), and adds the gateway's own token
    in `Adaptry-Gateway-Token`. The model is the body's `model`, and nothing else in the request is used. 200
    lets the request pass, 403 does not.
    """
    body = await read_body(request, protocol.JSON_LIMIT)
    model = await read_json(body, _LIMITS, app_state_of(request).parse_slots, _model)
    question = InferenceRequest(token=_token(request), model=model)
    try:
        decision = await run_in_own_threads("reads", partial(registry.grants.authorize, question))
    except PermissionDenied as error:
        raise PermissionDenied(error.message, public_message=_DENIED) from error
    if not decision.is_allowed or decision.principal is None:
        raise PermissionDenied(_DENIED)
    parts = "+".join(f"{part.name}@{part.digest}{weight_suffix(part.weight)}" for part in decision.parts)
    names = {"Adaptry-Principal": header_text(decision.principal, 193), "Adaptry-Model": parts}
    return Response(headers={**_CACHE_HEADERS, **names})


def _model(document: object) -> str:
    """The model that a request names. Raises `Invalid`, for example if an engine that ignores case could use
    a different model.
    """
    names = document if isinstance(document, dict) else {}
    if any(key != "model" and key.casefold() == "model" for key in names):
        raise Invalid("the request has two keys `model` that differ only in upper and lower case")
    model = names.get("model")
    if not isinstance(model, str) or not 1 <= len(model) <= MAX_MODEL:
        raise Invalid(f"the request names no model, or one of more than {MAX_MODEL} characters")
    return model


def _token(request: Request) -> SecretStr:
    """The token of the request's sender; an invalid one if the request has no token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return SecretStr(token.strip()[:MAX_TOKEN] if scheme.lower() == "bearer" else "")
