"""The base of a version, if the registry has compared the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord


def verified_base(registry: Registry, version: VersionInfo) -> BaseRecord | None:
    """The base's record; None if the base is unknown, or only declared. Raises the errors of reading a
    registry.
    """
    if version.base_id is None or version.base_status != "verified":
        return None
    return registry.bases.record(version.base_id)
