"""Shared by commands that change the state of a version: their options, and the change itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import click

from adaptry.core.errors import Conflict, NotFound
from adaptry.core.lifecycle import STATE_RULES, State
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.promotion import find_rollback
from adaptry.operations.version_state import change_state
from adaptry.registry.interface import Registry
from adaptry.registry.records import StateChange
from adaptry_cli.arguments import REF, validate_options
from adaptry_cli.connection import registry_option
from adaptry_cli.output import json_option, print_answer, print_err

_NEWEST_EVENTS = 200  # of the adapter's events, searched for the alias's last move

_ref = click.argument("ref", metavar="NAME@VERSION", type=REF)


_reason = click.option(
    "--reason", required=True, metavar="TEXT", help="Why; stored, and shown to everyone who uses the version."
)


_successor = click.option("--successor", metavar="REF", help="The version to use instead.")


def state_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument and the options of a command that withdraws a version. (`Any`: command arguments.)"""
    return _ref(_reason(_successor(registry_option(json_option(command)))))


def set_state(
    registry: Registry, ref: Ref, state: State, reason: str, successor: str | None, as_json: bool
) -> None:
    """Changes a version's state and prints the new one. Raises the errors of `version_state.change_state`."""
    changed = change_state(
        registry, ref, validate_options(StateChange, state=state, reason=reason, successor=successor)
    )
    version = changed.version
    label = version.label
    if not changed.is_change:
        print_err(f"{label} is already {state}")
    elif changed.was != state:
        print_err(f"{label} was {changed.was}")
    if not STATE_RULES[state].allows_aliases:
        for alias in version.aliases:
            ways = " or ".join(_ways_to_move(registry, version.name, alias))
            print_err(f"warning: {alias} still points at this version; {ways} moves it")
    print_answer(version, f"{label} {state}", as_json)


def _ways_to_move(registry: Registry, name: AdapterName, alias: str) -> Iterator[str]:
    """The commands that move an alias away from a withdrawn version; `rollback` only if it would succeed."""
    with suppress(NotFound, Conflict):
        find_rollback(registry, name, alias, _NEWEST_EVENTS)
        yield f"`adaptry rollback {name}@{alias}`"
    yield f"`adaptry alias set {name}@VERSION {alias}`"
