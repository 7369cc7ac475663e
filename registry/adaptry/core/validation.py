"""Validates values from callers; an error is one sentence instead of a validation library's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from adaptry.core.errors import Invalid

if TYPE_CHECKING:
    from pydantic import BaseModel

    from adaptry.core.value import FrozenValue

Model = TypeVar("Model", bound="BaseModel | FrozenValue")


def validated(model: type[Model], sentences: Mapping[str, str] | None = None, /, **fields: object) -> Model:
    """An instance of `model` with these fields. Raises `Invalid` with the sentence for the field, or else
    with the field and the reason.
    """
    try:
        return model(**fields)
    except ValueError as error:
        first = first_fault(error)
    field = str(first["loc"][0]) if first["loc"] else ""
    if sentences and field in sentences:
        raise Invalid(sentences[field])
    reason = describe_fault(first)
    raise Invalid(f"{field.replace('_', ' ')}: {reason}" if field else reason)


def first_fault(error: ValueError) -> Mapping[str, Any]:
    """The first fault that pydantic found. Raises any other `error` again. (`Any`: of pydantic.)"""
    faults = getattr(error, "errors", None)
    if faults is None:
        raise error
    first: Mapping[str, Any] = faults(include_url=False, include_input=False)[0]
    return first


def describe_fault(fault: Mapping[str, Any]) -> str:
    """The reason in one of pydantic's faults, the same for models and dataclasses. (`Any`: of pydantic.)"""
    if fault["type"] == "unexpected_keyword_argument":
        return "Extra inputs are not permitted"
    return str(fault["msg"]).removeprefix("Value error, ")
