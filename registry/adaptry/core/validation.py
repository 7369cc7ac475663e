"""Validates values from callers; an error is one sentence instead of a validation library's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adaptry.core.errors import Invalid

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], sentences: Mapping[str, str] | None = None, /, **fields: object) -> Model:
    """`model` with these fields. Raises `Invalid` with the sentence for the field, else with the field and
    the reason.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    if sentences and field in sentences:
        raise Invalid(sentences[field])
    reason = first["msg"].removeprefix("Value error, ")
    raise Invalid(f"{field.replace('_', ' ')}: {reason}" if field else reason)
