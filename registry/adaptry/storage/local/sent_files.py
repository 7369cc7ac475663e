"""The files of a small push, which are sent together with its manifest.

They are checked in memory, so bytes that are not admitted are never stored, and do not count towards a quota.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.adapters.content import MemoryContent
from adaptry.core.errors import InvalidManifest, TooLarge
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName
from adaptry.registry.versions import MAX_SENT
from adaptry.storage.blobs.store import require_digest
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.small_files import SmallFiles


@dataclass(frozen=True)
class SentFiles(SmallFiles):
    """The verified files of a manifest, also by name, so that they can be read as an adapter."""

    content: MemoryContent

    @classmethod
    def verified(
        cls, context: RegistryContext, name: AdapterName, declared: Manifest, sent: Sequence[bytes]
    ) -> SentFiles:
        """The files, after verification. Raises `TooLarge`, `DigestMismatch`, and `InvalidManifest` if the
        manifest has other files.
        """
        if declared.size > MAX_SENT:
            raise TooLarge(
                f"the files have {declared.size:,} bytes; at most {MAX_SENT >> 20} MiB are pushed in one"
                " request; upload them first"
            )
        if [len(data) for data in sent] != [entry.size for entry in declared.files]:
            raise InvalidManifest(
                f"{sum(map(len, sent)):,} bytes were sent for {len(declared.files)} files of"
                f" {declared.size:,} bytes; the manifest's files follow it, in its order"
            )
        data = {entry.sha256: file for entry, file in zip(declared.files, sent, strict=True)}
        for digest, file in data.items():
            require_digest(digest, file)
        paths = {entry.path: data[entry.sha256] for entry in declared.files}
        return cls(context, name, data, MemoryContent(paths))
