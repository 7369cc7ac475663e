"""Reads versions for a pull by stored texts, without SQLAlchemy and pydantic.

It answers only where nothing needs an explanation. Otherwise, the caller asks the whole registry, which has
the rules and the errors.
"""

from __future__ import annotations

from typing import Any

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.refs import Ref
from adaptry.core.tree_paths import check_path
from adaptry.registry.quick_values import FileToPull, VersionToPull
from adaptry.storage.catalog.prepared import PreparedReads
from adaptry.storage.catalog.ref_query import ref_query
from adaptry.storage.catalog.statement_texts import (
    ALL_DAMAGED,
    COUNT_FOR_ADAPTER,
    COUNT_FOR_VERSION,
    TREE,
    WITHDRAWN_REVISION,
    PreparedStatement,
)

_SIZE = 1 << 20  # maximum bytes of a version's manifest


def try_find(reads: PreparedReads, ref: Ref) -> VersionToPull | None:
    """The version that a ref selects. None unless there is exactly one, which is active, has its manifest,
    and has no file that is known to be damaged.
    """
    rows = reads.select(*ref_query(ref))
    if len(rows) != 1 or rows[0].state != "active":
        return None
    (row,) = rows
    parameters = {"adapter": row.adapter_key, "digest": row.digest}
    trees = reads.select(TREE, parameters)
    if not trees or reads.select(WITHDRAWN_REVISION, parameters):
        return None
    digest = Digest(row.digest)
    files = _files(digest, trees[0].manifest)
    damaged = {damage.digest for damage in reads.select(ALL_DAMAGED, {})}
    if not files or any(file.sha256.hex in damaged for file in files):
        return None
    return VersionToPull(ref.name, row.number, digest, files)


def count_statements(reads: PreparedReads, ref: Ref) -> tuple[tuple[PreparedStatement[Any], int], ...]:
    """The changes that count a download of the version that a ref selects, each with its key; none if there
    is no such version.
    """
    rows = reads.select(*ref_query(ref))
    if len(rows) != 1 or rows[0].id is None:
        return ()
    return (COUNT_FOR_VERSION, rows[0].id), (COUNT_FOR_ADAPTER, rows[0].adapter_key)


def _files(digest: Digest, manifest: bytes) -> tuple[FileToPull, ...]:
    """The files that a stored manifest names; none if it is damaged or has a path that we would not write."""
    if Digest.of(manifest) != digest:
        return ()
    try:
        document = strictjson.loads(manifest, strictjson.JsonLimits(_SIZE, depth=16, nodes=100_000), "")
        if document["schema"] != 1:
            return ()
        return tuple(
            FileToPull(check_path(entry["path"]), int(entry["size"]), Digest.parse(entry["sha256"]))
            for entry in document["files"]
        )
    except (Invalid, KeyError, TypeError):
        return ()
