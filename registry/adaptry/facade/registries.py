"""`connect`, and the registry arguments of functions: an open registry, or its location."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from adaptry.core.errors import Invalid
from adaptry.core.settings import AdaptrySettings
from adaptry.registry.interface import Registry

RegistryLike: TypeAlias = Registry | Path | str
"""A registry: what `connect` returns, a server's URL, or a folder."""


def connect(where: Path | str | None = None, *, token: str | None = None, create: bool = True) -> Registry:
    """Opens a registry: a server's URL, or a folder.

    The result is a context manager, and may be used by many threads:

        with adaptry.connect("https://adapters.example.org") as registry:
            adaptry.pull(registry, "acme/tone@prod", "./tone")

    Args:
        where: The server's URL (`https://…`), or a folder (a path, or a string that begins with `./`, `../`,
            `/` or `~`). None: `ADAPTRY_URL`, else the registry in your user data folder.
        token: The token for a server. None: `ADAPTRY_TOKEN`, else the token that `adaptry login` stored.
        create: Whether a folder without a registry becomes one.

    Raises:
        Invalid: `where` is neither a URL nor a folder, or the token is malformed.
        NotFound: the folder has no registry, and `create` is False.
        Unavailable: the folder or its database cannot be used. (A server is first contacted by the first
            call.)
        ProtocolMismatch: the registry was created by a newer Adaptry.
    """
    from adaptry.storage.connect import connect as open_registry

    settings = AdaptrySettings.from_env()
    if token is not None:
        settings = replace(settings, token=token)
    return open_registry(None if where is None else str(where), settings, create_missing=create)


@contextmanager
def opened(registry: RegistryLike, *, create: bool = False) -> Iterator[Registry]:
    """The registry; one that this opens is closed when the block ends. Raises the errors of `connect`."""
    with lazily_opened(registry, create=create) as open_registry:
        yield open_registry()


@contextmanager
def lazily_opened(registry: RegistryLike | None, *, create: bool = False) -> Iterator[Callable[[], Registry]]:
    """A function that opens the registry on its first call, for operations on folders that may need none.

    None is the configured registry. What it opened is closed when the block ends.
    """
    if not isinstance(registry, Registry | Path | str | None):
        raise Invalid(
            "pass a registry as the result of adaptry.connect(), a server's URL, or a folder, not"
            f" {type(registry).__name__}: {str(registry)[:80]!r}"
        )
    with ExitStack() as stack:

        def open_once() -> Registry:
            if isinstance(registry, Registry):
                return registry
            return stack.enter_context(connect(registry, create=create))

        yield functools.cache(open_once)
