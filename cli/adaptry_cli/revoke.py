"""`adaptry revoke`: recall a version."""

from __future__ import annotations

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.command import command
from adaptry_cli.state_change import set_state, state_options


@command()
@state_options
def revoke(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Recall a version: its files can no longer be pulled, and engines unload it.

    The same weights cannot be pushed again in its namespace. Only owners of its namespace
    can read or restore the version.
    """
    set_state(registry, ref, "revoked", reason, successor, as_json)
