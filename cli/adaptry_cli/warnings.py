"""Telling whoever takes a version that is not active, and why it is not."""

from __future__ import annotations

from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import caution
from adaptry_cli.out import tell


def tell_caution(version: VersionInfo) -> None:
    said = caution(version)
    if said:
        tell(f"warns: {said}")
