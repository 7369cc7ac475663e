"""Authorization of inference requests: whether the holder of a token may use a model, for a gateway with its
own token.

The token's rights are looked up for each check, so a removed right ends with the gateway's next check.
Neither errors nor the audit log contain the token.
"""

from __future__ import annotations

from adaptry.core.access.conditions import Facts
from adaptry.core.errors import Conflict, NotFound, PermissionDenied, Unauthenticated
from adaptry.core.identity import Identity
from adaptry.core.lifecycle import WITHDRAWN
from adaptry.core.stack_ref import StackRef
from adaptry.registry.inference import DENIAL, AuthorizedPart, InferenceDecision, InferenceRequest
from adaptry.storage import tokens
from adaptry.storage.catalog.version_info import info
from adaptry.storage.local.context import RegistryContext


def authorize_inference(context: RegistryContext, request: InferenceRequest) -> InferenceDecision:
    """The decision about every part of the model. Raises `InvalidRef`, and `PermissionDenied` if the gateway
    may not ask about one of the parts, whether that exists or not.
    """
    stack = StackRef.parse(request.model)
    _require_gateway(context, stack)
    try:
        holder = tokens.identify(context.catalog, request.token.get_secret_value())
        parts = _usable_parts(context.on_behalf_of(holder), stack)
    except (Unauthenticated, NotFound, Conflict):
        return DENIAL
    if not parts:
        return DENIAL
    context.note_token_use(holder)
    return InferenceDecision(is_allowed=True, principal=holder.name, parts=parts)


def _require_gateway(context: RegistryContext, stack: StackRef) -> None:
    gateway: Identity = context.identity
    for part in stack.parts:
        name = part.ref.name
        if not gateway.may("inference.authorize", name, Facts(now=context.clock())):
            raise PermissionDenied(
                f"{gateway.name} may not authorize requests in {name.namespace!r} (inference.authorize);"
                f" ask an owner of {name.namespace!r}"
            )


def _usable_parts(context: RegistryContext, stack: StackRef) -> tuple[AuthorizedPart, ...]:
    """The versions of all parts; none if one was withdrawn. Raises `NotFound`, `Conflict` (ambiguous)."""
    parts = []
    with context.catalog.read_prepared() as reads:
        for part in stack.parts:
            version = info(reads, context.resolve(reads, part.ref))
            if version.state in WITHDRAWN:
                return ()
            parts.append(
                AuthorizedPart(
                    name=version.name, number=version.number, digest=version.digest, weight=part.weight
                )
            )
    return tuple(parts)
