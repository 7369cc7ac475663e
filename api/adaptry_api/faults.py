"""What a client is told of a document that does not fit its model."""

from __future__ import annotations

from pydantic import ValidationError

from adaptry.core.errors import Invalid

_MOST_FAULTS = 50
"""Faults of one document that are described: to describe each of 19,000 unknown keys takes 40 ms of processor
time.
"""


def require_few_faults(error: ValidationError) -> None:
    """Raises `Invalid` for a document with so many faults that a list of them would cost more than the
    document.
    """
    if error.error_count() > _MOST_FAULTS:
        raise Invalid(
            f"the request has {error.error_count():,} unknown or malformed values; look up in its description"
            " (GET /api/v1/openapi.json) what it takes"
        ) from None


def first_fault(error: ValidationError) -> str:
    """Where the first fault of a document is, and what it is. Raises `Invalid` for a document with very
    many.
    """
    require_few_faults(error)
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where[:200]}: {first['msg'][:500]}"
