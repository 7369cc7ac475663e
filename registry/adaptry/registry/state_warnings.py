"""Messages about a version that is not active: warnings for its users, errors for callers without access."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.core.errors import Withdrawn
from adaptry.core.lifecycle import STATE_RULES, WITHDRAWN

if TYPE_CHECKING:
    from adaptry.registry.records import VersionInfo


def state_warning(version: VersionInfo) -> str | None:
    """`acme/tone@3 is deprecated: it stutters; use acme/tone@4 instead`; None for an active version."""
    if version.state == "active":
        return None
    state_record = version.last_state_change
    why = f": {state_record.reason}" if state_record else ""
    instead = f"; use {state_record.successor} instead" if state_record and state_record.successor else ""
    return f"{version.label} is {version.state}{why}{instead}"


def withdrawn_error(version: VersionInfo) -> Withdrawn:
    """The error for a caller who may not read a version's files because of its state."""
    readers = STATE_RULES[version.state].readers
    return Withdrawn(
        f"{state_warning(version)} (its files are withheld from all but {readers} of"
        f" {version.name.namespace})"
    )


def require_usable(version: VersionInfo) -> None:
    """Raises `Withdrawn`, for every caller, if nothing may be derived from the version."""
    if version.state in WITHDRAWN:
        raise withdrawn_error(version)
