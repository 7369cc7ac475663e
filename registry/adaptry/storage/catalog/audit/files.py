"""Rows of files: whose they are, and marks of a sweep on files that are needed."""

from __future__ import annotations

from collections.abc import Iterator

from sqlmodel import col, select

from adaptry.storage.catalog import garbage
from adaptry.storage.catalog.audit.problem import IntegrityProblem
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.rows import FileRow, UploadRow


def problems(catalog: Catalog) -> Iterator[IntegrityProblem]:
    after = ""
    while True:
        with catalog.read() as tx:
            owners = garbage.owners(tx, after, 200)
        if not owners:
            return
        for owner in owners:
            yield from _of_owner(catalog, owner)
        after = owners[-1]


def _of_owner(catalog: Catalog, owner: str) -> Iterator[IntegrityProblem]:
    with catalog.read() as tx:
        marked = select(FileRow.digest).where(
            FileRow.owner == owner, col(FileRow.unneeded_since).is_not(None)
        )
        found = tx.exec(marked).all()
        sending = select(UploadRow.id).where(UploadRow.owner == owner, col(UploadRow.is_finished).is_(False))
        if not found or tx.exec(sending.limit(1)).first():
            return
        needed = garbage.named_files(tx, owner)
        for digest in sorted(needed.intersection(found)):
            yield IntegrityProblem(
                f"sha256:{digest[:12]} of {owner}",
                "it is in use, but marked as unneeded",
                "derived",
                f"file:{digest}:{owner}",
            )
