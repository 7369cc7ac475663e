"""Corrects a search's conditions for adapters whose versions do not all have their current terms yet."""

from __future__ import annotations

from collections.abc import Callable

from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.index_updates import outdated_adapters
from adaptry.storage.catalog.predicates import all_hold, any_holds, negated, one_of
from adaptry.storage.catalog.rows import VersionRow
from adaptry.storage.catalog.search_condition import SearchCondition
from adaptry.storage.catalog.value_conditions import ALL
from adaptry.storage.catalog.version_info import table_of
from adaptry.storage.catalog.version_lists import AnyList, VersionList

_ADAPTER = table_of(VersionRow).c.adapter_id


def corrected(
    tx: Reads, condition: SearchCondition, is_meant: Callable[[tuple[str, str]], bool]
) -> SearchCondition:
    """The condition that a version's adapter has one of the terms for which `is_meant` is true, given one
    that tests the version's own terms. Versions of outdated adapters are tested by the adapter's row.
    """
    outdated = outdated_adapters(tx)
    if not outdated:
        return condition
    matching = [adapter.key for adapter in outdated if any(map(is_meant, adapter.terms))]
    of_matching = one_of(tx, _ADAPTER, matching)
    of_outdated = one_of(tx, _ADAPTER, [adapter.key for adapter in outdated])
    test = any_holds([of_matching, all_hold([condition.test, negated(of_outdated)])])
    if not any(is_meant(term) for adapter in outdated for term in adapter.new):
        return SearchCondition(test, condition.lister, condition.terms)
    lists = None if condition.lister is None else AnyList((condition.lister, VersionList(ALL, of_matching)))
    return SearchCondition(test, lists)
