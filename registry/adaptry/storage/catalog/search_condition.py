"""What a condition of a search is: a test of one version, and lists of the versions that can meet it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, exists, literal_column, select
from sqlmodel import col

from adaptry.core.lazy_dataclass import dataclass
from adaptry.storage.catalog.predicates import (
    FALSE,
    Predicate,
    Value,
    all_hold,
    any_holds,
    negated,
    predicate,
)
from adaptry.storage.catalog.rows import PostingRow, Row, VersionRow
from adaptry.storage.catalog.version_lists import AnyList, KeyList, OneOfLists, VersionList

_MAX_TERMS = 200
LISTED = select(col(PostingRow.version_id))


@dataclass(frozen=True, slots=True)
class SearchCondition:
    """`test` is true or false of a version, and never NULL, so that it can be negated. `lister` lists all
    versions for which it is true; possibly others too, unless `is_exact`. It is None if reading all versions
    is as good.

    `terms`, if any, are terms of the search index of which each such version has one; each has a list in
    the order of keys.
    """

    test: Predicate
    lister: KeyList | None = None
    terms: tuple[int, ...] = ()
    is_exact: bool = False


NOTHING = SearchCondition(FALSE, AnyList(()))


def with_any_term(keys: Sequence[int]) -> SearchCondition:
    """Versions that have one of a few terms."""
    if not keys:
        return NOTHING
    lister = VersionList(LISTED, predicate(one_of_terms, values=keys), is_newest_first=len(keys) == 1)
    return SearchCondition(predicate(_has_term, values=keys), lister, tuple(keys), is_exact=True)


def one_of_terms(*keys: Value) -> ColumnElement[bool]:
    """The condition that a posting is one of these terms."""
    term = col(PostingRow.term_id)
    return term == keys[0] if len(keys) == 1 else term.in_(keys)


def _has_term(*keys: Value) -> ColumnElement[bool]:
    of_version = col(PostingRow.version_id) == col(VersionRow.id)
    return has_row(PostingRow, and_(of_version, one_of_terms(*keys)))


def all_of(conditions: Sequence[SearchCondition]) -> SearchCondition:
    if len(conditions) == 1:
        return conditions[0]
    lists = tuple(one.lister for one in conditions if one.lister is not None)
    terms = next((one.terms for one in conditions if one.terms), ())
    return SearchCondition(
        all_hold([one.test for one in conditions]), OneOfLists(lists) if lists else None, terms
    )


def any_of(conditions: Sequence[SearchCondition]) -> SearchCondition:
    lists = tuple(one.lister for one in conditions if one.lister is not None)
    possible = [one for one in conditions if one is not NOTHING]
    terms = {term for one in possible for term in one.terms}
    if not all(one.terms for one in possible) or len(terms) > _MAX_TERMS:
        terms = set()
    return SearchCondition(
        any_holds([one.test for one in conditions]),
        AnyList(lists) if len(lists) == len(conditions) else None,
        tuple(sorted(terms)),
    )


def none_of(condition: SearchCondition) -> SearchCondition:
    return SearchCondition(negated(condition.test))


def has_row(table: type[Row], condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether `table` has a row that meets the condition, which refers to the outer query's version."""
    return exists(select(literal_column("1")).select_from(table).where(condition).correlate(VersionRow))
