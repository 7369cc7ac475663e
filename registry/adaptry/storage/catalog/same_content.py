"""Finds the version that already has the files of a push, whatever it declares and however it was pushed.

A push that claims its base by content also finds a version whose base could not be determined, as after an
upload by a Hub client. That version can then be bound to the base.
"""

from __future__ import annotations

import contextlib

from adaptry.adapters.formats import detect_format
from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import BaseClaim, Manifest
from adaptry.storage.catalog import files
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Reads
from adaptry.storage.catalog.lazy_modules import sa, tables
from adaptry.storage.catalog.prepared import run_select
from adaptry.storage.catalog.statement_texts import Selection, statement
from adaptry.storage.catalog.versions import manifest

_MAX_COMPARED = 20  # maximum number of versions with the same weights to compare


@statement
def _same_weights() -> Selection:
    return (
        sa.select(tables.versions.c.digest, tables.versions.c.base_id, tables.versions.c.base_name)
        .where(
            tables.versions.c.adapter_id == sa.bindparam("adapter"),
            tables.versions.c.weights == sa.bindparam("weights"),
            tables.versions.c.state.in_(("active", "deprecated")),
        )
        .order_by(tables.versions.c.number.desc())
        .limit(_MAX_COMPARED)
    )


@dataclass(frozen=True, slots=True)
class SameContent:
    """A usable version with the same files. `missing_base` is the base that it lacks and the push claims."""

    manifest: Manifest
    missing_base: Digest | None = None


def find_same_content(tx: Reads, adapter: AdapterRecord, wanted: Manifest) -> SameContent | None:
    """The newest usable version with the same files and base, whatever its other declarations; without one,
    the newest with the same files that claims none and whose base is not known, if the push claims one by
    content.
    """
    format = detect_format(entry.path for entry in wanted.files)
    entry = wanted.file(format.weights) if format else None
    weights = files.find_weights_digest(tx, entry.sha256) if entry else None
    if weights is None:
        return None
    without_base = None
    for row in run_select(tx, _same_weights, {"adapter": adapter.key, "weights": weights.hex}):
        with contextlib.suppress(CorruptData):  # a push of the same files may repair it
            one = manifest(tx, Digest(row.digest))
            if one.files != wanted.files:
                continue
            if _is_same_base(one.base, row.base_id, row.base_name, wanted.base):
                return SameContent(one)
            if without_base is None and one.base is None and row.base_id is None:
                without_base = one
    claimed = wanted.base.id if wanted.base else None
    return SameContent(without_base, claimed) if without_base and claimed else None


def _is_same_base(
    claim: BaseClaim | None, base_id: str | None, base_name: str | None, wanted: BaseClaim | None
) -> bool:
    """Whether a version has the base that is wanted: by its claim, or by the base that the registry found for
    it or that it was bound to. A push that claims none means a version with any base."""
    if wanted is None or claim == wanted:
        return True
    if wanted.id is not None:
        return base_id == wanted.id.hex
    return wanted.name == base_name
