"""The search index: the terms of every version, against those derived from its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from sqlmodel import col, select

from adaptry.core.errors import CorruptData
from adaptry.storage.catalog import index_updates, terms, versions
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.rows import AdapterRow, PostingRow, TermRow, VersionRow


def problems(tx: Transaction, row: AdapterRow) -> Iterator[IntegrityProblem]:
    of_adapter = select(VersionRow.id).where(VersionRow.adapter_id == row.id)
    query = (
        select(PostingRow.version_id, TermRow.field, TermRow.text)
        .join(TermRow, col(TermRow.id) == col(PostingRow.term_id))
        .where(col(PostingRow.version_id).in_(of_adapter))
    )
    assert row.id is not None
    is_outdated = index_updates.is_outdated(tx, row.id)
    found: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for key, field, text in tx.exec(query):
        found[key].add((field, text))
    for version in tx.exec(select(VersionRow).where(VersionRow.adapter_id == row.id)).all():
        assert version.id is not None
        try:
            expected = versions.terms_of(tx, version)
        except CorruptData:  # already reported for the revision
            continue
        wrong = sorted(found[version.id] ^ expected)
        if is_outdated:  # the terms of the adapter follow
            wrong = [term for term in wrong if term[0] not in terms.ADAPTER_FIELDS]
        if wrong:
            yield IntegrityProblem(
                f"{row.name}@{version.number}",
                "its search index differs from its rows:"
                f" {', '.join(f'{field}:{text}' for field, text in wrong[:3])[:200]}",
                "derived",
                f"index:{version.id}",
            )
