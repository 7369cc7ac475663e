"""`adaptry deprecate`: advise against a version."""

from __future__ import annotations

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.command import command
from adaptry_cli.state_change import set_state, state_options


@command()
@state_options
def deprecate(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Mark a version as deprecated.

    It can still be found and pulled, with a warning. NAME without a version no longer selects it.
    """
    set_state(registry, ref, "deprecated", reason, successor, as_json)
