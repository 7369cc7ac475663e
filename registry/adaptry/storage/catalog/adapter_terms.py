"""The search terms that versions have because of their adapter: its name, visibility, tags and words."""

from __future__ import annotations

from adaptry.storage.catalog import adapter_statements
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.encoding import decode_list
from adaptry.storage.catalog.lazy_modules import orm
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.terms import words
from adaptry.storage.catalog.version_info import Columns

FIELDS = ("name", "namespace", "visibility", "tag", "word")
"""The fields of the search index that describe the adapter rather than the version."""


def of_key(tx: Reads, key: int) -> list[tuple[str, str]]:
    """The terms of the adapter with this key."""
    (row,) = run_select(tx, adapter_statements.described, {"key": key})
    return of_row(row)


def of_row(row: orm.AdapterRow | Columns) -> list[tuple[str, str]]:
    bare, tags = row.name.partition("/")[2], decode_list(row.tags)
    return [
        ("name", row.name),
        ("name", bare),
        ("namespace", row.namespace),
        ("visibility", row.visibility),
        *(("tag", tag) for tag in tags),
        *(("word", word) for word in words(" ".join((row.name, row.description, *tags)))),
    ]
