"""The types of a job's fields: names in the registry as the user wrote them, never a path on a machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from adaptry.core.errors import Invalid, InvalidRef
from adaptry.core.refs import Ref, is_folder, parse_base_name, split_weight

Dtype = Literal["F32", "F16", "BF16"]


def _ref(text: str) -> str:
    """A ref as the user wrote it. Raises `ValueError`, also for a folder."""
    if is_folder(text):
        raise ValueError(
            f"a job takes adapters from the registry, not folders: push {text[:200]!r} first (adaptry push"
            " DIR NAME)"
        )
    try:
        Ref.parse(text)
    except InvalidRef as error:
        raise ValueError(error.message) from None
    return text


def _weighted(text: str) -> str:
    try:
        _ref(split_weight(text)[0])
    except Invalid as error:
        raise ValueError(error.message) from None
    return text


def _key(text: str) -> str:
    if is_folder(text):
        raise ValueError(
            f"a job takes a base from the registry, not a folder: register {text[:200]!r} first (adaptry"
            " base add DIR --name ORG/MODEL)"
        )
    return text


def _base_name(text: str) -> str:
    try:
        parse_base_name(text)
    except InvalidRef as error:
        raise ValueError(error.message) from None
    return text


def _runtime(text: str) -> str:
    from adaptry.checks.runtimes import parse_runtime

    try:
        return str(parse_runtime(text))
    except Invalid as error:
        raise ValueError(error.message) from None


RefText = Annotated[str, Field(max_length=512), AfterValidator(_ref)]
WeightedRefText = Annotated[str, Field(max_length=512), AfterValidator(_weighted)]
BaseKey = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_key)]
RuntimeText = Annotated[str, Field(max_length=1024), AfterValidator(_runtime)]
BaseName = Annotated[str, Field(max_length=512), AfterValidator(_base_name)]
