"""Shared by commands that change the state of a version: their options, and the change itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from adaptry.core.lifecycle import STATE_RULES, State
from adaptry.core.refs import Ref
from adaptry.operations.version_state import change_state
from adaptry.registry.interface import Registry
from adaptry.registry.records import StateChange
from adaptry_cli.arguments import REF, validate_options
from adaptry_cli.connection import registry_option
from adaptry_cli.out import json_option, print_answer, print_err

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
    """Changes a version's state and prints the new one. Raises what `version_state.change_state` raises."""
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
            print_err(
                f"warning: {alias} still points at this version; `adaptry rollback {version.name}@{alias}` or"
                f" `adaptry alias set {version.name}@VERSION {alias}` moves it"
            )
    print_answer(version, f"{label} {state}", as_json)
