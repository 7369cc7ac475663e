"""Commands that take several adapters: one that cannot be read does not stop the others."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from adaptry.core.errors import AdaptryError
from adaptry.core.refs import folder_argument
from adaptry_cli.arguments import Source

Found = TypeVar("Found")


def source_text(source: Source) -> str:
    """The text by which commands name the adapter."""
    return shlex.quote(folder_argument(source)) if isinstance(source, Path) else str(source)


def for_each(
    sources: Iterable[Source], read: Callable[[Source], Found]
) -> Iterator[tuple[Source, Found | AdaptryError]]:
    """For each source, the result of `read` or the error that it raised."""
    for source in sources:
        try:
            yield source, read(source)
        except AdaptryError as error:
            yield source, error


def error_json(source: Source, error: AdaptryError) -> dict[str, Any]:
    """An adapter that cannot be read, as JSON. (`Any`: JSON.)"""
    return {"adapter": source_text(source), "error": {"code": error.code, "message": error.message}}
