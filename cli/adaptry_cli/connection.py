"""Which registry a command talks to, and with which token.

`--registry` (before or after the command's name), else ADAPTRY_URL, else the embedded registry. A token comes from
ADAPTRY_TOKEN, else from what `adaptry login` kept for that server.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from adaptry.registry import Registry
from adaptry.settings import Settings


def registry_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--registry`, and passes what it leads to as `registry`. (`Any`: the arguments are each command's own.)"""

    @click.option("--registry", "where", metavar="URL|DIR", help="The registry to use.")
    @functools.wraps(command)
    def connected(*args: Any, where: str | None, **options: Any) -> Any:
        return command(*args, registry=connect_to(where), **options)

    return connected


def connect_to(where: str | None) -> Registry:
    """The registry at `where`, or the one this call is about anyway."""
    from adaptry.opening import connect

    settings = settings_for(where)
    registry = connect(settings.registry, settings)
    if context := click.get_current_context(silent=True):
        context.call_on_close(registry.close)
    return registry


def settings_for(where: str | None) -> Settings:
    """The environment's settings, with the place chosen and the token for it."""
    settings = Settings.from_env()
    context = click.get_current_context(silent=True)
    chosen = where or (context.find_root().params.get("registry") if context else None) or settings.registry
    if chosen and settings.token is None and is_server(chosen):
        from adaptry_cli.credentials import token_for

        return replace(settings, registry=chosen, token=token_for(chosen))
    return replace(settings, registry=chosen)


def is_server(where: str) -> bool:
    return where.startswith(("http://", "https://"))
