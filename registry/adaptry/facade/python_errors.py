"""Errors and notes in Python's terms: sentences of the core name options, which here become arguments.

A function of the façade that is marked with `python_errors` raises the errors of the core unchanged, except
that `--other-base` in a message becomes `other_base=True` if the function has that argument, and so it does
in the notes of its result. An unknown name gets a suggestion from the registry. Complete commands
(`adaptry convert REF --base BASE`) and options of other programs stay as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from adaptry.core.errors import AdaptryError, NotFound
from adaptry.core.option_names import ArgumentNames

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_RENAMED = {"for": "engine", "force": "replace"}
"""Options whose argument has another name, unless the function has one of the option's name."""


def python_errors(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Marks a function whose errors and notes name its arguments instead of options."""

    @functools.wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            result: Result = _with_notes(function(*args, **kwargs), function)
        except AdaptryError as error:
            is_lost = isinstance(error, NotFound)
            hint = _suggestion(function, args, kwargs, error.message) if is_lost else ""
            error.message = with_arguments(error.message, function) + hint
            error.args = (error.message,)
            raise
        return result

    return called


def _suggestion(
    function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object], message: str
) -> str:
    """A suggestion from the registry in the function's argument `registry`. (`...`: any function.)"""
    from adaptry.facade.registries import lazily_opened
    from adaptry.operations.name_suggestions import suggestion_for

    arguments = inspect.signature(function).bind(*args, **kwargs).arguments
    with lazily_opened(arguments.get("registry")) as opened:
        return suggestion_for(opened, arguments, message)


def _with_notes(result: Any, function: Callable[..., object]) -> Any:
    """The result with arguments in its `notes` and in those of the values in its fields. (`Any`: all sorts of
    results.)
    """
    if not dataclasses.is_dataclass(result) or isinstance(result, type):
        return result
    changed: dict[str, object] = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if field.name == "notes":
            changed["notes"] = tuple(with_arguments(note, function) for note in value)
        elif isinstance(notes := getattr(value, "notes", None), tuple):
            new = {"notes": tuple(with_arguments(note, function) for note in notes)}
            is_model = hasattr(value, "model_copy")
            changed[field.name] = (
                value.model_copy(update=new) if is_model else dataclasses.replace(value, **new)
            )
    return dataclasses.replace(result, **changed) if changed else result


def with_arguments(message: str, function: Callable[..., object]) -> str:
    """The message with the function's arguments in the place of options. (`...`: any function.)"""
    parameters = inspect.signature(function).parameters
    flags = {name: isinstance(parameter.default, bool) for name, parameter in parameters.items()}
    return ArgumentNames(flags, _RENAMED).in_sentence(message)
