"""The warning for a version that is used and is not active."""

from __future__ import annotations

from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import state_warning
from adaptry_cli.output import print_err


def print_state_warning(version: VersionInfo) -> None:
    warning = state_warning(version)
    if warning:
        warn(warning)


def warn(sentence: str) -> None:
    """Prints a warning to the user of the command."""
    print_err(f"warning: {sentence}")
