"""Manifests in rows: used only if they still have the digest under which they were stored."""

from __future__ import annotations

from functools import lru_cache

from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData
from adaptry.core.manifest import Manifest

_SMALL = 4 << 10
"""Size in bytes of manifests that are kept parsed: at most some 20 files."""


def stored_manifest(digest: Digest, data: bytes) -> Manifest:
    """The manifest in a row. Raises `CorruptData` if its bytes have changed: it could name other files."""
    if Digest.of(data) != digest:
        raise CorruptData(
            f"the stored manifest of revision {digest.brief} is damaged; push the same files again, or run "
            "`adaptry repair` on the registry's machine"
        )
    return _parse_small(data) if len(data) <= _SMALL else Manifest.parse(data)


_parse_small = lru_cache(maxsize=256)(
    Manifest.parse
)  # readers of a revision need its manifest again and again
