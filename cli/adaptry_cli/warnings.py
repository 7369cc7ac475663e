"""Telling whoever takes a version that is not active, and why it is not."""

from __future__ import annotations

from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import state_warning
from adaptry_cli.out import print_err


def print_state_warning(version: VersionInfo) -> None:
    warning = state_warning(version)
    if warning:
        print_err(f"warns: {warning}")
