"""What a condition of a search is: a test of one version, and lists of the versions that can meet it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import ColumnElement, and_, bindparam, exists, false, literal_column, not_, or_, select
from sqlmodel import col

from adaptry.storage.catalog.rows import PostingRow, Row, VersionRow
from adaptry.storage.catalog.version_lists import AnyList, KeyList, OneOfLists, VersionList

_MOST_TERMS = 200
_KEPT = 256  # conditions, whose making takes a fifth of a search
_OF_TERM = select(col(PostingRow.version_id)).where(col(PostingRow.term_id) == bindparam("term"))


@dataclass(frozen=True, slots=True)
class SearchCondition:
    """`test` is true or false of a version, and never NULL, so that it can be negated. `lister` lists all
    versions for which it is true, and maybe others; None if nothing is better than reading all versions.

    `terms`, if any, are terms of the search index of which each such version has one; each has a list in
    the order of keys.
    """

    test: ColumnElement[bool]
    lister: KeyList | None = None
    terms: tuple[int, ...] = ()


NOTHING = SearchCondition(false(), AnyList(()))


def with_any_term(keys: Sequence[int]) -> SearchCondition:
    """Versions that have one of a few terms."""
    return _with_any(tuple(keys)) if keys else NOTHING


@lru_cache(maxsize=_KEPT)
def _with_any(keys: tuple[int, ...]) -> SearchCondition:
    of_version = col(PostingRow.version_id) == col(VersionRow.id)
    if len(keys) == 1:
        test = has_row(PostingRow, of_version & (col(PostingRow.term_id) == keys[0]))
        return SearchCondition(
            test, VersionList(_OF_TERM, {"term": keys[0]}, is_newest_first=True), (keys[0],)
        )
    has_term = col(PostingRow.term_id).in_(keys)
    lister = VersionList(select(col(PostingRow.version_id)).where(has_term))
    return SearchCondition(has_row(PostingRow, of_version & has_term), lister, keys)


def all_of(conditions: Sequence[SearchCondition]) -> SearchCondition:
    if len(conditions) == 1:
        return conditions[0]
    lists = tuple(one.lister for one in conditions if one.lister is not None)
    terms = next((one.terms for one in conditions if one.terms), ())
    return SearchCondition(
        and_(*(one.test for one in conditions)), OneOfLists(lists) if lists else None, terms
    )


def any_of(conditions: Sequence[SearchCondition]) -> SearchCondition:
    lists = tuple(one.lister for one in conditions if one.lister is not None)
    possible = [one for one in conditions if one is not NOTHING]
    terms = {term for one in possible for term in one.terms}
    if not all(one.terms for one in possible) or len(terms) > _MOST_TERMS:
        terms = set()
    return SearchCondition(
        or_(*(one.test for one in conditions)),
        AnyList(lists) if len(lists) == len(conditions) else None,
        tuple(sorted(terms)),
    )


def none_of(condition: SearchCondition) -> SearchCondition:
    return SearchCondition(not_(condition.test))


def has_row(table: type[Row], condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether `table` has a row that meets the condition, which refers to the outer query's version."""
    return exists(select(literal_column("1")).select_from(table).where(condition).correlate(VersionRow))
