"""`adaptry deprecate`: advise against a version."""

from __future__ import annotations

import click

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.state_change import set_state, state_options


@click.command()
@state_options
def deprecate(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Advise against a version.

    It is given and found as before, with a warning; a bare name no longer means it.
    """
    set_state(registry, ref, "deprecated", reason, successor, as_json)
