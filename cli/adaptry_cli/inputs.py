"""Lookups of data about an adapter before it is shown."""

from __future__ import annotations

from adaptry.core.errors import Conflict, Invalid, NotFound, Unavailable
from adaptry.operations.sources import OpenedAdapter, RegistryOpener


def base_parameters(connected: RegistryOpener, opened: OpenedAdapter) -> int | None:
    """How large the adapter's base is: the version's, else the one its config names; None if unknown."""
    known = opened.version.base_id if opened.version else None
    key = str(known) if known else opened.adapter.config.base_name
    try:
        return connected().bases.get(key).parameters if key else None
    except (
        Conflict,
        Invalid,
        NotFound,
        Unavailable,
    ):  # the base is a hint: the adapter can be shown without it
        return None
