"""A `dataclass` decorator that works like the standard library's, at a tenth of the cost per class.

The standard library generates and compiles up to eight methods for each class, in 0.2 to 0.4 ms, even for the
many classes that a command imports and never uses. Here, the standard library only finds the
fields, so `fields`, `replace`, `asdict`, `match`, pydantic and type checkers see the same dataclass.
`__init__` is compiled at its first use. The other methods are closures over the names of the fields.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

Method = Callable[..., Any]
"""A method of any dataclass; its parameters depend on the fields."""

_COMPARISONS = {"__lt__": operator.lt, "__le__": operator.le, "__gt__": operator.gt, "__ge__": operator.ge}


def lazy_dataclass(
    kind: type | None = None,
    /,
    *,
    frozen: bool = False,
    slots: bool = False,
    kw_only: bool = False,
    eq: bool = True,
    order: bool = False,
    repr: bool = True,
    wrap_init: Callable[[type, Method], Method] | None = None,
) -> Any:
    """Like `dataclasses.dataclass`, but with only these options. (`Any`: it decorates any class.)

    `wrap_init` gets the class and its compiled `__init__`, and returns the `__init__` to use. A class derived
    from another dataclass is left to the standard library. A field without a default after a field with one
    is an error only at the first use. Raises `TypeError` for an `InitVar` or a field with `init=False`.
    """
    options = {"frozen": frozen, "slots": slots, "kw_only": kw_only, "eq": eq, "order": order, "repr": repr}
    if kind is None:
        return lambda kind: lazy_dataclass(kind, wrap_init=wrap_init, **options)
    if any(map(dataclasses.is_dataclass, kind.__mro__[1:])):
        return dataclasses.dataclass(**options)(kind)
    own = {name for name, method in vars(kind).items() if method is not None}  # `__hash__` may be None
    kind.__doc__ = kind.__doc__ or kind.__name__  # otherwise the standard library sets it to the signature
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(kind)
    _require_plain_fields(made)
    for name, option in {"init": True, **options}.items():
        if hasattr(made.__dataclass_params__, name):
            setattr(made.__dataclass_params__, name, option)
    for name, method in _methods(made, wrap_init, **options).items():
        if name not in own:
            setattr(made, name, method)
    return made


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = lazy_dataclass


def _require_plain_fields(kind: Any) -> None:
    fields = dataclasses.fields(kind)
    if not all(field.init for field in fields) or {*kind.__match_args__} - {field.name for field in fields}:
        raise TypeError(f"{kind.__name__} has fields that only the standard library supports")


def _methods(
    kind: Any,
    wrap_init: Callable[[type, Method], Method] | None,
    *,
    frozen: bool,
    slots: bool,
    kw_only: bool,
    eq: bool,
    order: bool,
    repr: bool,
) -> dict[str, Any]:
    """The methods by name; `__hash__` is None for a class whose values are mutable. (`Any`: see above.)"""
    made: dict[str, Any] = {"__init__": _LazyInit(kind, frozen, wrap_init)}
    if repr:
        made["__repr__"] = _repr(kind)
    if eq:
        made |= _comparisons(kind, order)
        made["__hash__"] = _hash(kind) if frozen else None
    if frozen:
        made |= _refusals(kind)
        if slots:
            made |= {"__getstate__": _state, "__setstate__": _restore}
    return made


class _Factory:
    """The default of a parameter whose field has a default factory."""

    def __repr__(self) -> str:
        return "<factory>"


class _LazyInit:
    """A placeholder for the `__init__` of a class; the first access replaces it by the compiled one."""

    def __init__(self, kind: Any, is_frozen: bool, wrap: Callable[[type, Method], Method] | None) -> None:
        self._kind = kind
        self._is_frozen = is_frozen
        self._wrap = wrap

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """The bound method or the function. Several threads may compile it at once, which is harmless."""
        init: Any = _compiled_init(self._kind, self._is_frozen)
        if self._wrap:
            init = self._wrap(self._kind, init)
        self._kind.__init__ = init
        return init.__get__(instance, owner)


def _compiled_init(kind: Any, is_frozen: bool) -> Method:
    """The function that the standard library would generate. (`Any`: see above.)"""
    values: dict[str, Any] = {"_assign": object.__setattr__, "_missing": _Factory()}
    parameters: list[str] = []
    keywords: list[str] = []
    body: list[str] = []
    for field in dataclasses.fields(kind):
        name, value = field.name, field.name
        parameter = name
        if field.default is not MISSING:
            values[f"_default_{name}"] = field.default
            parameter += f"=_default_{name}"
        elif field.default_factory is not MISSING:
            values[f"_new_{name}"] = field.default_factory
            parameter += "=_missing"
            value = f"_new_{name}() if {name} is _missing else {name}"
        (keywords if field.kw_only else parameters).append(parameter)
        body.append(f"_assign(self, {name!r}, {value})" if is_frozen else f"self.{name} = {value}")
    if hasattr(kind, "__post_init__"):
        body.append("self.__post_init__()")
    listed = ", ".join(["self", *parameters, *(["*", *keywords] if keywords else [])])
    lines = "\n  ".join(body or ["pass"])
    source = f"def make({', '.join(values)}):\n def __init__({listed}):\n  {lines}\n return __init__"
    found: dict[str, Any] = {}
    exec(source, vars(sys.modules[kind.__module__]), found)  # has only field names, which are identifiers
    init: Any = found["make"](**values)
    init.__qualname__ = f"{kind.__qualname__}.__init__"
    init.__annotations__ = {field.name: field.type for field in dataclasses.fields(kind)} | {"return": None}
    return init  # type: ignore[no-any-return]  # compiled above


def _repr(kind: Any) -> Method:
    names = [field.name for field in dataclasses.fields(kind) if field.repr]

    @recursive_repr()
    def shown(self: object) -> str:
        listed = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({listed})"

    return shown


def _key(names: list[str]) -> Method:
    """A function that returns the tuple of these attributes of a value."""
    if not names:
        return lambda value: ()
    return operator.attrgetter(*names, names[0])  # one is repeated, since a single one gives no tuple


def _comparisons(kind: Any, order: bool) -> dict[str, Method]:
    """Values of the same class are compared as the tuples of their fields."""
    key = _key([field.name for field in dataclasses.fields(kind) if field.compare])

    def comparison(compare: Callable[[Any, Any], bool]) -> Method:
        def method(self: object, other: object) -> Any:
            return compare(key(self), key(other)) if type(other) is type(self) else NotImplemented

        return method

    return {"__eq__": comparison(operator.eq)} | (
        {name: comparison(compare) for name, compare in _COMPARISONS.items()} if order else {}
    )


def _hash(kind: Any) -> Method:
    fields = dataclasses.fields(kind)
    key = _key([each.name for each in fields if (each.compare if each.hash is None else each.hash)])
    return lambda self: hash(key(self))


def _refusals(kind: Any) -> dict[str, Method]:
    """Assignments raise `FrozenInstanceError`, except to attributes that only a subclass has."""
    names = {field.name for field in dataclasses.fields(kind)}

    def refuse_assignment(self: object, name: str, value: object) -> None:
        if type(self) is kind or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(kind, self).__setattr__(name, value)

    def refuse_deletion(self: object, name: str) -> None:
        if type(self) is kind or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(kind, self).__delattr__(name)

    return {"__setattr__": refuse_assignment, "__delattr__": refuse_deletion}


def _state(self: Any) -> list[object]:
    """The state for pickle and `copy`, which cannot assign the attributes of a frozen value with slots."""
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _restore(self: Any, state: list[object]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
