"""`adaptry deprecate`: advise against a version."""

from __future__ import annotations

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.command import command
from adaptry_cli.state_change import set_state, state_options


@command()
@state_options
def deprecate(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Advise against a version.

    It can still be pulled and found, with a warning. A name without a version no longer means it.
    """
    set_state(registry, ref, "deprecated", reason, successor, as_json)
