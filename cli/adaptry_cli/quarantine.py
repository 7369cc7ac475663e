"""`adaptry quarantine`: withhold a version's files while it is investigated."""

from __future__ import annotations

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry_cli.command import command
from adaptry_cli.state_change import set_state, state_options


@command()
@state_options
def quarantine(registry: Registry, ref: Ref, reason: str, successor: str | None, as_json: bool) -> None:
    """Withhold a version's files while it is investigated.

    Only maintainers and owners of its namespace can still pull it, with `adaptry pull --include-withdrawn`.
    """
    set_state(registry, ref, "quarantined", reason, successor, as_json)
