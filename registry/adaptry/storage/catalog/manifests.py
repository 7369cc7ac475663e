"""Manifests in rows: used only if they still have the digest under which they were stored."""

from __future__ import annotations

from adaptry.core.digest import Digest
from adaptry.core.errors import CorruptData
from adaptry.core.manifest import Manifest


def stored_manifest(digest: Digest, data: bytes) -> Manifest:
    """The manifest in a row. Raises `CorruptData` if its bytes have changed: it could name other files."""
    if Digest.of(data) != digest:
        raise CorruptData(
            f"the stored manifest of revision {digest.brief} is damaged; push the same files again, or run "
            "`adaptry mend` on the registry's machine"
        )
    return Manifest.parse(data)
