"""Error messages for documents that do not match their model."""

from __future__ import annotations

from pydantic import ValidationError

from adaptry.core.errors import Invalid

_MAX_FAULTS = 50
"""Maximum number of faults described per document: 19,000 unknown keys would take 40 ms of processor time."""


def require_few_faults(error: ValidationError) -> None:
    """Raises `Invalid` if there are so many faults that listing them would cost more than reading the
    document did.
    """
    if error.error_count() > _MAX_FAULTS:
        raise Invalid(
            f"the request has {error.error_count():,} unknown or malformed values; see its description"
            " (GET /api/v1/openapi.json)"
        ) from None


def first_fault(error: ValidationError) -> str:
    """The location and description of the first fault. Raises `Invalid` for a document with too many."""
    require_few_faults(error)
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where[:200]}: {first['msg'][:500]}"
