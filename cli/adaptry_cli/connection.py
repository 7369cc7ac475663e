"""The registry that a command uses, and the token for it.

`--registry` (before or after the command's name), else ADAPTRY_URL, else the embedded registry. A token comes
from ADAPTRY_TOKEN, else from what `adaptry login` saved for that server. Only a command that stores something
creates a missing registry. Commands that work in a registry's own folder (`serve`, `work`, `token`) have
`--data`, which precedes all of that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptry.core.errors import NotFound
from adaptry.core.settings import AdaptrySettings, data_folder, is_server
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import require_usage
from adaptry_cli.gc_pause import paused_garbage_collection
from adaptry_cli.output import print_err

if TYPE_CHECKING:
    from adaptry.adapters.inspection.process import InspectionProcess

RegistryOpener = Callable[[], Registry]
"""Opens the registry when it is called, for a command that may need none."""

_where = click.option("--registry", "where", metavar="URL|DIR", help="The registry to use.")


def registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--registry`, and passes the opened `registry`. (`Any`: each command has its arguments.)"""

    @_where
    @functools.wraps(command)
    def connected(*args: Any, where: str | None, **options: Any) -> Any:
        return _called(command, connect_to(where), args, options)

    return connected


def reading_registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Like `registry_option`, for a command that lists or pulls: the registry in a folder is a
    `LazyRegistry`. (`Any`: each command has its arguments.)
    """

    @_where
    @functools.wraps(command)
    def connected(*args: Any, where: str | None, **options: Any) -> Any:
        return _called(command, connect_to(where, is_lazy=True), args, options)

    return connected


def creating_registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Like `registry_option`, for a command that creates a missing registry, except with `--dry-run`. (`Any`:
    each command has its arguments.)
    """

    @_where
    @functools.wraps(command)
    def connected(*args: Any, where: str | None, **options: Any) -> Any:
        registry = (
            _open_for_dry_run(where) if options.get("dry_run") else connect_to(where, create_missing=True)
        )
        return _called(command, registry, args, options)

    return connected


def pushing_registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Like `creating_registry_option`, for a command that pushes: it uses the inspection process that the
    program may have started. (`Any`: each command has its arguments.)
    """

    @_where
    @functools.wraps(command)
    def connected(*args: Any, where: str | None, **options: Any) -> Any:
        started = click.get_current_context().find_root().obj
        registry = connect_to(where, create_missing=True, inspection=started)
        return _called(command, registry, args, options)

    return connected


def cleanup_registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Like `registry_option`, for a command that frees space: without `--dry-run`, it also works on a full
    disk. (`Any`: each command has its arguments.)
    """

    @_where
    @functools.wraps(command)
    def connected(*args: Any, where: str | None, **options: Any) -> Any:
        return _called(command, connect_to(where, for_cleanup=not options.get("dry_run")), args, options)

    return connected


def lazy_registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Like `registry_option`, for a command that may need no registry: passes `connected`, which opens it.
    (`Any`: each command has its arguments.)
    """

    @_where
    @functools.wraps(command)
    def unconnected(*args: Any, where: str | None, **options: Any) -> Any:
        opened = functools.cache(lambda: connect_to(where))
        with suggest_names(opened, options):
            return command(*args, connected=opened, **options)

    return unconnected


def _called(
    command: Callable[..., Any], registry: Registry, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """(`Any`: each command has its arguments.)"""
    with suggest_names(lambda: registry, options):
        return command(*args, registry=registry, **options)


@contextmanager
def suggest_names(opened: RegistryOpener, arguments: Mapping[str, object]) -> Iterator[None]:
    """Adds a suggestion to a `NotFound` raised in the block, which runs a command with these `arguments`."""
    try:
        yield
    except NotFound as error:
        from adaptry.operations.name_suggestions import suggestion_for

        if not (hint := suggestion_for(opened, arguments, error.message)):
            raise
        raise type(error)(error.message + hint) from error


def connect_to(
    where: str | None,
    *,
    create_missing: bool = False,
    for_cleanup: bool = False,
    is_lazy: bool = False,
    inspection: InspectionProcess | None = None,
) -> Registry:
    """The registry at `where`, else the configured one. `create_missing` creates it, with a message;
    `for_cleanup` opens it for writing even if the disk is full; `is_lazy` and `inspection` as in `connect`.
    """
    from adaptry.storage.connect import connect, is_registry, resolve_folder

    settings = settings_for(where)
    place = settings.registry
    is_new = create_missing and place and not is_server(place) and not is_registry(resolve_folder(place))
    with paused_garbage_collection():
        registry = connect(
            place,
            settings,
            create_missing=create_missing,
            for_cleanup=for_cleanup,
            is_lazy=is_lazy,
            inspection=inspection,
        )
    if is_new:
        print_err(f"created a registry in {place}")
    if context := click.get_current_context(silent=True):
        context.call_on_close(registry.close)
    return registry


def _open_for_dry_run(where: str | None) -> Registry:
    """The registry at `where`; if it does not exist yet, an empty one in memory."""
    from adaptry.storage.connect import is_registry, open_in_memory, resolve_folder

    settings = settings_for(where)
    place = settings.registry
    if settings.catalog or (place and is_server(place)):
        return connect_to(where)
    is_there = is_registry(resolve_folder(place) if place else data_folder())
    return connect_to(where) if is_there else open_in_memory()


def settings_for(where: str | None) -> AdaptrySettings:
    """The environment's settings, with the chosen registry and its token."""
    settings = AdaptrySettings.from_env()
    context = click.get_current_context(silent=True)
    chosen = where or (context.find_root().params.get("registry") if context else None) or settings.registry
    if chosen and settings.token is None and is_server(chosen):
        from adaptry.core.credentials import token_for

        return replace(settings, registry=chosen, token=token_for(chosen))
    return replace(settings, registry=chosen)


def folder_of(data: Path | None, reason: str) -> Path:
    """The folder of a registry, for commands that run on its machine: `data`, else the one of `settings_for`,
    else the embedded registry's.

    Raises a usage error with the `reason` if that is a server's address.
    """
    from adaptry.storage.connect import resolve_folder

    where = None if data else settings_for(None).registry
    require_usage(
        where is None or not is_server(where),
        f"{where} is a server's address, and {reason}: pass --data DIR, or unset ADAPTRY_URL for the embedded"
        " registry",
    )
    return data or (resolve_folder(where) if where else data_folder())


def require_server(url: str | None) -> str:
    """The server's address: `url`, or that of `settings_for`. Raises a usage error if neither is set."""
    server = settings_for(url).registry
    require_usage(bool(server), "name the server: pass its URL, or set ADAPTRY_URL")
    assert server is not None
    require_usage(
        is_server(server), f"{server!r} is not a server's address (https://…); a folder needs no token"
    )
    return server
