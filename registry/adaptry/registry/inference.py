"""Values for authorizing inference requests: a gateway's request, and the decision."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SecretStr

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.access import AccessRequest
from adaptry.registry.records import Value

MAX_AGE: Final = 5
"""Seconds for which a decision may be cached. A removed right ends within this time."""
MAX_TOKEN: Final = 512
MAX_MODEL: Final = 2048


class InferenceRequest(AccessRequest):
    """The token sent with a request to an engine, and the `model` that the request names.

    `model` is a ref (`acme/tone@prod`), or several with weights, whose updates are added up:
    `acme/tone+acme/facts=0.5`. The token never appears in the value's text.
    """

    token: SecretStr = Field(max_length=MAX_TOKEN)
    model: str = Field(min_length=1, max_length=MAX_MODEL)


class AuthorizedPart(Value):
    """A version that may be used, and the weight of its update."""

    name: AdapterName
    number: int
    digest: Digest
    weight: float = 1.0


class InferenceDecision(Value):
    """Whether the holder of the token may use all parts of the model, for the next `max_age` seconds.

    A denial gives no reason: it is the same for an unknown token, an adapter that does not exist or is
    private, and a withdrawn version.
    """

    is_allowed: bool
    max_age: int = MAX_AGE
    principal: str | None = None
    parts: tuple[AuthorizedPart, ...] = ()


DENIAL: Final = InferenceDecision(is_allowed=False)
