"""The orders of listings, as callers name them: `name`, `updated`, `metric.accuracy`.

All but `name` begin with the largest or newest. Adapters with equal values are in name order, versions with
equal values newest first; versions without a value come last, in the reverse order too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

from adaptry.core.errors import Invalid
from adaptry.core.suggestions import suggestion

AdapterSortKey = Literal["name", "updated", "downloads", "versions"]
VersionColumn = Literal["newest", "downloads", "rank", "size"]

ADAPTER_SORT_KEYS: tuple[AdapterSortKey, ...] = get_args(AdapterSortKey)
VERSION_SORT_KEYS: tuple[str, ...] = (*get_args(VersionColumn), "metric.NAME")
_METRIC = "metric."


def parse_adapter_sort(key: str) -> AdapterSortKey:
    """Raises `Invalid` for an unknown key."""
    if key not in ADAPTER_SORT_KEYS:
        raise _unknown(key, ADAPTER_SORT_KEYS)
    return key


def parse_version_sort(key: str) -> tuple[VersionColumn, None] | tuple[None, str]:
    """The column of a key, or the name of its metric. Raises `Invalid` for an unknown key."""
    if key.startswith(_METRIC) and key != _METRIC:
        return None, key.removeprefix(_METRIC)
    if key not in get_args(VersionColumn):
        raise _unknown(key, VERSION_SORT_KEYS)
    return cast(VersionColumn, key), None


def _unknown(key: str, known: Sequence[str]) -> Invalid:
    return Invalid(f"unknown sort key {key[:80]!r} (one of: {', '.join(known)}){suggestion(key, known)}")
