"""Errors and notes in Python's terms: sentences of the core name options, which here become arguments.

A function of the façade that is marked with `python_errors` raises the errors of the core unchanged, except
that `--other-base` in a message becomes `other_base=True` if the function has that argument, and so it does
in the notes of its result. Complete commands (`adaptry convert REF --base BASE`) and options of other
programs stay as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from adaptry.core.errors import AdaptryError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_RENAMED = {"for": "engine", "force": "replace"}
"""Options whose argument has another name, unless the function has one of the option's name."""
_COMMAND = re.compile(r"`adaptry [^`]*`|\badaptry [a-z][^;,()]*")
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*)(?: (?P<value>[\w./|-]*\w))?")
_NO_VALUES = frozenset(("and", "as", "for", "if", "in", "instead", "of", "or", "to", "too", "which", "with"))


def python_errors(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Marks a function whose errors and notes name its arguments instead of options."""

    @functools.wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            result: Result = _with_notes(function(*args, **kwargs), function)
        except AdaptryError as error:
            error.message = with_arguments(error.message, function)
            error.args = (error.message,)
            raise
        return result

    return called


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
    parts, at = [], 0
    for command in _COMMAND.finditer(message):
        parts += [_replaced(message[at : command.start()], parameters), command[0]]
        at = command.end()
    return "".join([*parts, _replaced(message[at:], parameters)])


def _replaced(text: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    return _OPTION.sub(lambda option: _argument(option, parameters), text)


def _argument(option: re.Match[str], parameters: Mapping[str, inspect.Parameter]) -> str:
    name = option[1].replace("-", "_")
    name = name if name in parameters else _RENAMED.get(name, name)
    value = option["value"]
    if name not in parameters:
        return option[0]
    if isinstance(parameters[name].default, bool):
        return f"{name}=True" + (f" {value}" if value else "")
    if value is None or value in _NO_VALUES:
        return f"{name}=…" + (f" {value}" if value else "")
    is_placeholder = re.fullmatch(r"[A-Z|]+|[\d.]+", value)
    return f"{name}={value}" if is_placeholder else f'{name}="{value}"'
