"""What is said of a version that is not active: to whoever takes it, and to whom it is not given."""

from __future__ import annotations

from adaptry.core.errors import Withdrawn
from adaptry.core.lifecycle import STATE_RULES, WITHDRAWN
from adaptry.registry.records import VersionInfo


def state_warning(version: VersionInfo) -> str | None:
    """`acme/tone@3 is deprecated: it stutters; take acme/tone@4 instead`; None for a version that is
    active.
    """
    if version.state == "active":
        return None
    state_record = version.standing
    why = f": {state_record.reason}" if state_record else ""
    instead = f"; take {state_record.successor} instead" if state_record and state_record.successor else ""
    return f"{version.label} is {version.state}{why}{instead}"


def withdrawn_error(version: VersionInfo) -> Withdrawn:
    """For whom a version's files are held back from."""
    readers = STATE_RULES[version.state].readers
    return Withdrawn(
        f"{state_warning(version)} (its files are held back from all but {readers} of"
        f" {version.name.namespace})"
    )


def require_usable(version: VersionInfo) -> None:
    """Raises `Withdrawn` for a version that nothing should be made from, whoever asks."""
    if version.state in WITHDRAWN:
        raise withdrawn_error(version)
