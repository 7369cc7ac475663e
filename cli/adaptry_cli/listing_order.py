"""Orders of listings that the registry does not keep: every entry is read, and the first ones are kept."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from adaptry.core.errors import Invalid
from adaptry.core.suggestions import suggestion
from adaptry.registry.records import AdapterInfo, VersionInfo
from adaptry_cli.out import print_err

Item = TypeVar("Item")
SortKey = tuple[bool, float, str]
"""Whether the entry has no value (those come last), the value, and the name."""

_ADAPTERS: Mapping[str, Callable[[AdapterInfo], float]] = {
    "name": lambda info: 0,
    "updated": lambda info: -info.updated_at.timestamp(),
    "downloads": lambda info: -info.downloads,
    "versions": lambda info: -info.versions,
}
_VERSIONS: Mapping[str, Callable[[VersionInfo], float | None]] = {
    "newest": lambda info: -info.number,
    "downloads": lambda info: -info.downloads,
    "rank": lambda info: None if info.rank is None else -info.rank,
    "size": lambda info: -info.size,
}
_METRIC = "metric."


def adapter_order(key: str) -> Callable[[AdapterInfo], SortKey]:
    """Raises `Invalid` for an unknown key."""
    if key not in _ADAPTERS:
        raise _unknown(key, _ADAPTERS)
    return lambda info: (False, _ADAPTERS[key](info), str(info.name))


def version_order(key: str) -> Callable[[VersionInfo], SortKey]:
    """Raises `Invalid` for an unknown key. Versions with the same value: the newest first."""
    if key.startswith(_METRIC) and key != _METRIC:
        metric = key.removeprefix(_METRIC)
        return lambda info: _of_value(info, _negated(info.metrics.get(metric)))
    if key not in _VERSIONS:
        raise _unknown(key, [*_VERSIONS, "metric.NAME"])
    return lambda info: _of_value(info, _VERSIONS[key](info))


def first_in_order(
    items: Iterable[Item], key: Callable[[Item], SortKey], reverse: bool, limit: int
) -> list[Item]:
    """The first `limit` items in an order; a message says when there are more."""
    count = 0

    def counted() -> Iterable[Item]:
        nonlocal count
        for item in items:
            count += 1
            yield item

    def reversed_key(item: Item) -> SortKey:
        is_missing, value, name = key(item)
        return not is_missing, value, name  # of which the largest come first: those with a value

    pick = heapq.nlargest if reverse else heapq.nsmallest
    found = pick(limit, counted(), key=reversed_key if reverse else key)
    if count > limit:
        print_err(f"showing the first {limit} of {count}; --limit shows more")
    return found


def _of_value(info: VersionInfo, value: float | None) -> SortKey:
    return value is None, 0.0 if value is None else value, f"{10**9 - info.number:010d}"


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _unknown(key: str, known: Iterable[str]) -> Invalid:
    names = list(known)
    return Invalid(f"unknown sort key {key[:80]!r} (one of: {', '.join(names)}){suggestion(key, names)}")
