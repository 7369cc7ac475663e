"""Adapters of very many tensors, whose data a server derives in another process.

The header, the spec and the inspection of 89,088 tensors are a million small objects. While they exist, other
objects are created among them, so 40 MB of Python's memory could not be returned to the system afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from adaptry.adapters.content import Content, MemoryContent
from adaptry.core.identity import Identity
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName

if TYPE_CHECKING:
    from adaptry.registry.records import PushOptions
    from adaptry.storage.catalog.versions import Admission
    from adaptry.storage.local.admission import ResolvedBase

DeriveWide: TypeAlias = """Callable[
    [Identity, AdapterName, Manifest, PushOptions, MemoryContent | None], tuple[Admission, ResolvedBase]
]"""
"""The same as `RevisionDerivation.derive`, on behalf of an identity; with content, as `derive_sent`."""

_WIDE = 1 << 20


def is_wide(content: Content) -> bool:
    """Whether a weights file has a header of more than 1 MiB (about 7,000 tensors)."""
    return any(
        size > _WIDE and int.from_bytes(content.read(path, 0, 8), "little") > _WIDE
        for path, size in content.sizes.items()
        if path.endswith(".safetensors")
    )
