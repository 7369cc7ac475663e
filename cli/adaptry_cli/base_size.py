"""The number of parameters of an adapter's base, to show the adapter's size as a share of it."""

from __future__ import annotations

from adaptry.core.errors import Conflict, Invalid, NotFound, Unavailable
from adaptry.operations.sources import OpenedAdapter, RegistryOpener


def base_parameters(connected: RegistryOpener, opened: OpenedAdapter) -> int | None:
    """The number of parameters of the version's base, or else of the base that the config names; None if
    unknown.
    """
    known = opened.version.base_id if opened.version else None
    key = str(known) if known else opened.adapter.config.base_name
    try:
        return connected().bases.get(key).parameters if key else None
    except (Conflict, Invalid, NotFound, Unavailable):
        return None  # the adapter can be shown without it
