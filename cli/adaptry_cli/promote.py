"""`adaptry promote`: move an alias to a version."""

from __future__ import annotations

import click

from adaptry.core.errors import CheckFailed
from adaptry.core.refs import Ref
from adaptry.operations import promotion
from adaptry.registry.aliases import PRODUCTION, MoveRequest
from adaptry.registry.interface import Registry
from adaptry_cli.alias_move import expect_option, print_decision, print_move, print_refusal
from adaptry_cli.arguments import ALIAS, REF, validate_options
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.output import json_option


@command()
@click.argument("ref", type=REF)
@click.option(
    "--to",
    "alias",
    default=PRODUCTION,
    show_default=True,
    metavar="ALIAS",
    type=ALIAS,
    help="The alias to move.",
)
@expect_option
@click.option(
    "--if",
    "condition",
    metavar="EXPR",
    help="Move the alias only if this condition is met, in addition to its policies.",
)
@click.option(
    "--override",
    metavar="REASON",
    help="Move the alias even if conditions are not met. Requires the right policy.override.",
)
@registry_option
@json_option
def promote(
    registry: Registry,
    ref: Ref,
    alias: str,
    expect: int | None,
    condition: str | None,
    override: str | None,
    as_json: bool,
) -> None:
    """Move an alias (prod) to a version.

    If the alias has a policy, shows each condition with its numbers, and exits with 1 if the alias does not
    move. `adaptry rollback` moves it back, which needs no conditions.
    """
    request = validate_options(MoveRequest, condition=condition, override=override)
    try:
        moved = promotion.promote(registry, ref, alias, expect=expect, request=request)
    except CheckFailed:
        print_refusal(registry, ref, alias, condition, as_json)
        raise
    if moved.alias.promotion is not None and not as_json:
        print_decision(registry, moved.alias.promotion)
    print_move(registry.versions, ref.name, moved, as_json)
