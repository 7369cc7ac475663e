"""The orders of listings and searches, as callers name them: `name`, `updated`, `metric.accuracy`.

All but `name` begin with the largest or newest. Adapters with equal values are in name order, versions with
equal values newest first; versions without a value always come last, even in reverse order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast, get_args

from adaptry.core.errors import Invalid, InvalidQuery
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.suggestions import suggestion

if TYPE_CHECKING:
    from adaptry.core.query_terms import EvalName

AdapterSortKey = Literal["name", "updated", "downloads", "versions"]
VersionColumn = Literal["newest", "downloads", "rank", "size"]
SearchColumn = Literal["newest", "name", "created", "updated", "downloads", "rank", "alpha", "size"]

ADAPTER_SORT_KEYS: tuple[AdapterSortKey, ...] = get_args(AdapterSortKey)
VERSION_SORT_KEYS: tuple[str, ...] = (*get_args(VersionColumn), "metric.NAME")
SEARCH_SORT_KEYS: tuple[str, ...] = (*get_args(SearchColumn), "metric.NAME", "eval.TASK.METRIC")
_METRIC, _EVAL = "metric.", "eval."


@dataclass(frozen=True, slots=True)
class SearchOrder:
    """The order of a search: by a column, a logged metric, or the newest evidence of a task's metric.

    `created` is when a version was pushed, `updated` when its adapter was last changed.
    """

    column: SearchColumn | None = None
    metric: str | None = None
    evaluation: EvalName | None = None


def parse_adapter_sort(key: str) -> AdapterSortKey:
    """Parses a sort key of adapters. Raises `Invalid` for an unknown key."""
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


def parse_search_sort(key: str) -> SearchOrder:
    """Parses a sort key of a search. Raises `Invalid` for an unknown key."""
    if key.startswith(_METRIC) and key != _METRIC:
        return SearchOrder(metric=key.removeprefix(_METRIC))
    if key.startswith(_EVAL):
        from adaptry.core.query_terms import parse_eval_name

        try:
            return SearchOrder(evaluation=parse_eval_name(key.removeprefix(_EVAL)))
        except InvalidQuery as error:
            raise Invalid(f"unknown sort key: {error.message}") from None
    if key not in get_args(SearchColumn):
        raise _unknown(key, SEARCH_SORT_KEYS)
    return SearchOrder(cast(SearchColumn, key))


def _unknown(key: str, known: Sequence[str]) -> Invalid:
    return Invalid(f"unknown sort key {key[:80]!r} (one of: {', '.join(known)}){suggestion(key, known)}")
