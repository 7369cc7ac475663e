"""Values about rights at inference: what a gateway asks about a request for a model, and the answer."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SecretStr

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.access import AccessRequest
from adaptry.registry.records import Value

MAX_AGE: Final = 5
"""Seconds for which an answer may be reused. A right that is taken away ends within them."""
LONGEST_TOKEN: Final = 512
LONGEST_MODEL: Final = 2048


class InferenceRequest(AccessRequest):
    """The token that came with somebody's request to an engine, and the `model` that they want to use.

    `model` is a ref (`acme/tone@prod`), or several with weights, whose updates are added up:
    `acme/tone+acme/facts=0.5`. The token never appears in the value's text.
    """

    token: SecretStr = Field(max_length=LONGEST_TOKEN)
    model: str = Field(min_length=1, max_length=LONGEST_MODEL)


class AuthorizedPart(Value):
    """A version that may be used, and what its update is multiplied with."""

    name: AdapterName
    number: int
    digest: Digest
    weight: float = 1.0


class InferenceDecision(Value):
    """Whether the holder of the token may use all parts of the model, for the next `max_age` seconds.

    A denial says nothing else: it is the same for an unknown token, for what does not exist, for what is
    private, and for a version that was withdrawn.
    """

    is_allowed: bool
    max_age: int = MAX_AGE
    principal: str | None = None
    parts: tuple[AuthorizedPart, ...] = ()


DENIAL: Final = InferenceDecision(is_allowed=False)
