"""`adaptry deprecate`, `yank`, `quarantine`, `revoke` and `restore`: the state of a version, with a reason."""

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
    "--reason", required=True, metavar="TEXT", help="Why; kept, and shown to whoever takes it."
)
_successor = click.option("--successor", metavar="REF", help="What to take instead.")


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """(`Any`: a command's own arguments.)"""
    return _ref(_reason(_successor(registry_option(json_option(command)))))


@click.command()
@_options
def deprecate(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Advise against a version.

    It is given and found as before, with a warning; a bare name no longer means it.
    """
    set_state(registry, ref, "deprecated", reason, successor, as_json)


@click.command()
@_options
def yank(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Take a version out of use.

    Whoever names it or has it locked still gets it, with a warning; searches leave it out, and no alias moves to it.
    """
    set_state(registry, ref, "yanked", reason, successor, as_json)


@click.command()
@_options
def quarantine(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Hold a version's files back while it is looked into.

    Who may write to the adapter still gets them, on request (`adaptry pull --even-withdrawn`).
    """
    set_state(registry, ref, "quarantined", reason, successor, as_json)


@click.command()
@_options
def revoke(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Recall a version: nobody is given its files any more.

    Nor are its weights taken again under another name of its namespace. Administrators alone can look into it, and
    restore it.
    """
    set_state(registry, ref, "revoked", reason, successor, as_json)


def set_state(
    registry: Registry, ref: Ref, state: State, reason: str, successor: str | None, as_json: bool
) -> None:
    """Changes a version's state and prints what it is now. Raises as `standing.change_state`."""
    changed = change_state(
        registry, ref, validate_options(StateChange, state=state, reason=reason, successor=successor)
    )
    version = changed.version
    label = f"{version.name}@{version.number}"
    if not changed.is_change:
        print_err(f"{label} is {state} already")
    elif changed.was != state:
        print_err(f"{label} was {changed.was}")
    if not STATE_RULES[state].allows_aliases:
        for alias in version.aliases:
            print_err(
                f"warns: {alias} is still at this version; `adaptry rollback {version.name}@{alias}` or "
                f"`adaptry alias set {version.name}@VERSION {alias}` moves it"
            )
    print_answer(version, f"{label} {state}", as_json)
