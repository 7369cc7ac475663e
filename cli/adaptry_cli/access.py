"""`adaptry access explain`: why a principal may or may not do something."""

from __future__ import annotations

from typing import get_args

import click

from adaptry.core.access.actions import ACTIONS
from adaptry.core.states import State
from adaptry.registry.access import AccessQuery
from adaptry.registry.interface import Registry
from adaptry_cli.administration import administered_registry
from adaptry_cli.arguments import validate_options
from adaptry_cli.command import group
from adaptry_cli.output import json_option, print_json, print_out


@group()
def access() -> None:
    """Explain who may do what."""


@access.command()
@click.argument("user")
@click.argument("action", metavar="ACTION", type=click.Choice(tuple(ACTIONS)))
@click.argument("ref")
@click.option(
    "--state", type=click.Choice(get_args(State)), help="For state.set: the new state of the version."
)
@administered_registry
@json_option
def explain(registry: Registry, user: str, action: str, ref: str, state: str | None, as_json: bool) -> None:
    """Show whether USER may perform ACTION on REF, and which grant decides or what is missing.

    ACTION is read, push, evidence.add, alias.move, state.set, approve, delete, job.run,
    inference.authorize, worker.report, member.manage, policy.manage, policy.override, token.manage,
    webhook.manage or admin (docs/permissions.md). REF is an adapter (acme/tone), one of its aliases
    (acme/tone@prod) or a namespace (acme). The exit code is 0 either way.
    """
    decision = registry.grants.explain(
        validate_options(AccessQuery, principal=user, action=action, ref=ref, state=state)
    )
    if as_json:
        print_json(decision)
        return
    grant = f", grant {decision.grant}" if decision.grant is not None else ""
    verdict = "yes" if decision.is_allowed else "no"
    print_out(f"{verdict}: {user} {action} {ref}: {decision.reason}{grant}")
