"""The message about an adapter that has no version yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adaptry.core.errors import NotFound
from adaptry.core.refs import AdapterName, Latest, Ref

if TYPE_CHECKING:
    from adaptry.registry.adapters import Adapters


@contextmanager
def explain_empty_adapter(adapters: Adapters, ref: Ref) -> Iterator[None]:
    """Explains a `NotFound` of the latest version if the adapter has no version at all."""
    try:
        yield
    except NotFound:
        if isinstance(ref.selector, Latest) and adapters.get(ref.name).versions == 0:
            raise NotFound(no_version_message(ref.name)) from None
        raise


def no_version_message(name: AdapterName) -> str:
    return f"{name} has no version yet; `adaptry push ./DIR {name}` stores one"
