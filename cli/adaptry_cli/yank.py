"""`adaptry yank`: take a version out of use."""

from __future__ import annotations

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.command import command
from adaptry_cli.state_change import set_state, state_options


@command()
@state_options
def yank(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Take a version out of use.

    It can still be pulled by its number or from a lock file, with a warning. Searches leave it out, and no
    alias can move to it.
    """
    set_state(registry, ref, "yanked", reason, successor, as_json)
