"""Value classes that a program can construct, compare and store without importing pydantic.

Importing pydantic and building a model takes longer than most commands work. So the values of frequent
commands are frozen dataclasses of the standard library, which pydantic reads, writes and describes like its
own models: as fields of models, in requests and responses, and by the methods of `FrozenValue`, which import
pydantic when they are called. `to_json` writes the same bytes without it.

Read data from outside with `model_validate` and `model_validate_json`. A constructor only checks whether its
arguments are plain (`_is_plain`); if they are not, pydantic checks and converts them, or raises its error.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from functools import cache, wraps
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, dataclass_transform

from adaptry.core.lazy_dataclass import dataclass, lazy_dataclass

if TYPE_CHECKING:
    from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

Kind = TypeVar("Kind", bound="FrozenValue")
CLOSED: ConfigDict = {"extra": "forbid"}
"""The configuration of values whose JSON may have no unknown field."""


@dataclass(frozen=True)
class Pattern:
    """A regular expression that a text must match, as in `Annotated[str, Pattern("^[a-z]+$")]`."""

    pattern: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """(`Any`: the type in pydantic's signature.)"""
        return {**handler(source), "pattern": self.pattern}


def is_boolean(value: object) -> bool:
    """Whether a value is True or False, of Python, numpy or torch."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


class NotBoolean:
    """A number that is not True or False, as in `Annotated[float, NotBoolean()]`; pydantic accepts both as 1
    and 0.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """(`Any`: the type in pydantic's signature.)"""
        from pydantic_core.core_schema import no_info_before_validator_function

        return no_info_before_validator_function(_require_number, handler(source))


def _require_number(value: object) -> object:
    if is_boolean(value):
        raise ValueError(f"{value} is not a number")
    return value


FreeText = Annotated[str, Pattern(r"^[^\x00]*$")]
"""A text that somebody wrote, without the character U+0000, which PostgreSQL cannot hold."""


def limited(*, default: Any = MISSING, default_factory: Any = MISSING, **limits: Any) -> Any:
    """A field with limits (`ge`, `max_length`…) or another name in JSON (`alias`), named as in pydantic's
    `Field`. (`Any`: as of `dataclasses.field`.)
    """
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=limits)
    return field(default=default, metadata=limits)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field, limited))
def value(kind: type[Kind]) -> type[Kind]:
    """Makes a subclass of `FrozenValue` a frozen dataclass with keyword arguments only, which checks them."""
    wrap = None if kind._is_plain is FrozenValue._is_plain else _checking
    made: type[Kind] = lazy_dataclass(kind, frozen=True, kw_only=True, eq=False, repr=False, wrap_init=wrap)
    return made


class FrozenValue:
    """The base class of values, which are equal if their fields are.

    Unknown fields in JSON are ignored, so that an older client reads a newer server, unless
    `__pydantic_config__` forbids them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "ignore"}  # not the enclosing model's

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={item!r}' for name, item in vars(self).items())})"

    def _is_plain(self) -> bool:
        """Whether each field has exactly its type and is within its limits, so that pydantic would change
        nothing.
        """
        return True

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """The fields as a dictionary. (`Any`: here and below, as in pydantic's method of this name.)"""
        dumped: dict[str, Any] = type_adapter(type(self)).dump_python(self, **options)
        return dumped

    def model_dump_json(self, **options: Any) -> str:
        """The fields as JSON."""
        return type_adapter(type(self)).dump_json(self, **options).decode()

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """A copy with other values, which are not checked."""
        made = copy.copy(self)
        vars(made).update(update or {})
        return made

    @classmethod
    def model_validate(cls, value: object) -> Self:
        """The value of a dictionary. Raises pydantic's `ValidationError`."""
        made: Self = type_adapter(cls).validate_python(value)
        return made

    @classmethod
    def model_validate_json(cls, data: str | bytes) -> Self:
        """The value of JSON. Raises pydantic's `ValidationError`."""
        made: Self = type_adapter(cls).validate_json(data)
        return made

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The schema of the JSON that `model_validate_json` reads."""
        return type_adapter(cls).json_schema()


def to_json(value: FrozenValue) -> str:
    """The same text as `model_dump_json`, for a value whose fields are texts, numbers, tuples, maps or other
    such values.

    Only numbers that Python and pydantic write differently, such as 1e-7, are left to pydantic.
    """
    try:
        return json.dumps(value, default=_plain_fields, separators=(",", ":"), ensure_ascii=False)
    except _UnlikePydantic:
        return value.model_dump_json()


class _UnlikePydantic(ValueError):
    """A number that pydantic writes differently from Python."""


def _plain_fields(value: object) -> object:
    """The fields of a value, or the text of a digest or a name."""
    if not isinstance(value, FrozenValue):
        return str(value)
    found = vars(value)
    names = _number_fields(type(value))  # type: ignore[arg-type]  # as below
    numbers = {name: found[name] for name in names}
    for name, number in numbers.items():
        if number is not None:
            numbers[name] = float(number)  # as pydantic writes a whole number
            if number != 0 and not 1e-4 <= abs(number) < 1e16:
                raise _UnlikePydantic
    return {**found, **numbers} if numbers else found


@cache
def _number_fields(kind: Any) -> tuple[str, ...]:
    """The fields that are fractions. Raises `_UnlikePydantic` for fractions inside one. (`Any`: a
    dataclass.)
    """
    types = {each.name: str(each.type) for each in fields(kind)}
    if any("float" in text and text not in ("float", "float | None") for text in types.values()):
        raise _UnlikePydantic
    return tuple(name for name, text in types.items() if "float" in text)


def _checking(kind: type[Any], init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that has pydantic read arguments that are not plain. (`...`: each class has its own.)"""

    @wraps(init)
    def checked_init(self: FrozenValue, **given: object) -> None:
        init(self, **given)
        if not self._is_plain():
            vars(self).update(vars(type_adapter(kind).validate_python(given)))

    return checked_init


def type_adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Pydantic's reader and writer of a class. (`Any`: of any class.)"""
    return _type_adapter(kind)  # type: ignore[arg-type]  # mypy considers classes with fields not hashable


@cache
def _type_adapter(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
