"""`adaptry revoke`: recall a version."""

from __future__ import annotations

import click

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.state_change import set_state, state_options


@click.command()
@state_options
def revoke(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Recall a version: its files are given to nobody any more.

    Nor are its weights taken again under another name of its namespace. Administrators alone can look into
    it, and restore it.
    """
    set_state(registry, ref, "revoked", reason, successor, as_json)
