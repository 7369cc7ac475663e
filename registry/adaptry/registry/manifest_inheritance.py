"""The data that an adapter's tree inherits from the previous tree: whether it is the same adapter, and its
declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adaptry.adapters.formats import detect_format
from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest


def adapter_files(manifest: Manifest) -> dict[str, Digest]:
    """The adapter's files in a tree (weights, config, and further files of its tool); empty if the tree is
    not an adapter.
    """
    own = whole_adapter_of(entry.path for entry in manifest.files)
    return {entry.path: entry.sha256 for entry in manifest.files if entry.path in own}


def whole_adapter_of(paths: Iterable[str]) -> frozenset[str]:
    """The paths that together form an adapter (weights, config, and further files of its tool); empty if some
    of them are missing.
    """
    format = detect_format(paths)
    if format is None:
        return frozenset()
    return frozenset(path for path in (format.weights, format.config, *format.extra_files) if path)


def is_same_adapter(before: Manifest, after: Manifest) -> bool:
    """Whether both have an adapter with the same weights and config; a README may differ."""
    files = adapter_files(after)
    return bool(files) and files == adapter_files(before)


def inherit_manifest(before: Manifest, files: Mapping[str, tuple[int, Digest]]) -> Manifest:
    """The manifest of `{path: (size, digest)}` that follows `before`. It inherits the declarations if the
    adapter is the same, otherwise none. Raises `InvalidManifest` or `InvalidPath`.
    """
    after = Manifest.of(files)
    if not is_same_adapter(before, after):
        return after
    return Manifest.of(
        files,
        base=before.base,
        parents=before.parents,
        recipe=before.recipe,
        provenance=before.provenance,
    )
