"""The base of a version, where the registry has it: a version may name one by content, unregistered."""

from __future__ import annotations

from adaptry.adapters.base_record import BaseRecord
from adaptry.core.errors import NotFound
from adaptry.registry.bases import Bases
from adaptry.registry.records import VersionInfo


def base_record_or_none(bases: Bases, version: VersionInfo) -> BaseRecord | None:
    """None where the version names no base, or one that is not registered here or not to be seen."""
    if version.base_id is None:
        return None
    try:
        return bases.record(version.base_id)
    except NotFound:
        return None
