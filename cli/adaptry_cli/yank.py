"""`adaptry yank`: take a version out of use."""

from __future__ import annotations

import click

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.state_change import set_state, state_options


@click.command()
@state_options
def yank(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Take a version out of use.

    Whoever names it or has it locked still gets it, with a warning; searches leave it out, and no alias moves
    to it.
    """
    set_state(registry, ref, "yanked", reason, successor, as_json)
