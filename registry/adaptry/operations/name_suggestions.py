"""`did you mean acme/tone?`: a suggestion appended to errors about names that do not exist."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.core.errors import AdaptryError, InvalidRef, NotFound
from adaptry.core.refs import AdapterName, Label, Number, Ref, folder_argument, is_folder, split_weight

if TYPE_CHECKING:
    from adaptry.registry.adapters import Adapters
    from adaptry.registry.bases import Bases
    from adaptry.registry.interface import Registry

_PAGE = 200
_BASES = ("base", "key")  # the names of arguments that name a base


def suggestion_for(opened: Callable[[], Registry], arguments: Mapping[str, object], message: str) -> str:
    """The suggestion to append to an error's `message`; empty if the registry has no similar name or cannot
    be read. `arguments` are those of the command or function that raised the error. Arguments that the
    message does not name, such as the new name of a push, were not looked up and are ignored.
    """
    with contextlib.suppress(AdaptryError):
        return _first_hint(opened(), arguments, message)
    return ""


def _first_hint(registry: Registry, arguments: Mapping[str, object], message: str) -> str:
    for name, value in arguments.items():
        if name in _BASES and isinstance(value, str):
            hint = _hint_of_base(registry.bases, value) if value in message else ""
        else:
            named = (ref for ref in _refs(value) if str(ref.name) in message)
            hint = next(filter(None, (_hint_of_ref(registry, ref) for ref in named)), "")
        if hint:
            return hint
    return ""


def _refs(value: object) -> Iterator[Ref]:
    """The refs among an argument's values."""
    match value:
        case Ref():
            yield value
        case AdapterName():
            yield Ref(value)
        case str() if "/" in value and not is_folder(value):
            with contextlib.suppress(InvalidRef):
                yield Ref.parse(split_weight(value)[0])
        case tuple() | list() | dict():
            for each in value:
                yield from _refs(each)


def _hint_of_ref(registry: Registry, ref: Ref) -> str:
    from adaptry.core.suggestions import path_suggestion, suggestion

    try:
        registry.adapters.get(ref.name)
    except NotFound:
        return path_suggestion(str(ref.name), _names(registry.adapters, ref.name))
    match ref.selector:
        case Label(label):
            aliases = [one.alias for one in registry.aliases.list(ref.name)]
            if label in aliases or not aliases:
                return ""
            near = suggestion(label, aliases, template=f"{ref.name}@{{}}")
            return near or f" (aliases: {', '.join(aliases)})"
        case Number(number):
            newest = registry.versions.list(ref.name, None, 1).items
            if newest and number > newest[0].number:
                return f" (the newest version is {newest[0].number})"
    return ""


def _names(adapters: Adapters, name: AdapterName) -> Iterable[str]:
    """Names in the same namespace, then in all namespaces."""
    for namespace in (name.namespace, None):
        yield from (str(info.name) for info in adapters.list(namespace, None, _PAGE).items)


def _hint_of_base(bases: Bases, key: str) -> str:
    from adaptry.core.suggestions import path_suggestion

    if is_folder(key):
        return ""
    try:
        bases.get(key)
    except NotFound:
        if Path(key).is_dir():
            return f" (the folder here is written {folder_argument(Path(key))})"
        known = [name for info in bases.list(None, _PAGE).items for name in info.names]
        return path_suggestion(key, known)
    return ""
