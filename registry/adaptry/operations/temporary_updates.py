"""Reads a version's updates temporarily: downloads its files, verifies them, and deletes them afterwards.

This is for reading many versions once: nothing is stored in the user's cache or flushed to disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptry.adapters.adapter import Adapter, open_content, open_dir
from adaptry.adapters.formats import CONFIG, WEIGHTS
from adaptry.compute.lazy_adapters.deltas import AdapterDeltas, open_adapter_deltas
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.core.manifest import FileEntry
from adaptry.core.progress import no_progress
from adaptry.operations.transfer.file_download import download
from adaptry.operations.transfer.retry import DEFAULT_RETRY
from adaptry.operations.transfer.revision_content import RevisionContent
from adaptry.operations.verified_base import verified_base
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo


@contextmanager
def temporary_updates(registry: Registry, version: VersionInfo) -> Iterator[AdapterDeltas]:
    """The updates of a version, readable inside the block.

    Headers are checked first, remotely, to avoid useless downloads. Raises `Unsupported`, `CheckFailed` if
    they are not sums of factors, and the errors of reading a registry.
    """
    detail = registry.versions.detail(version.revision_ref)
    base = verified_base(registry, version)

    def parent(adapter: Adapter) -> ParentAdapter:
        return ParentAdapter(adapter, version.label, base=base)

    open_adapter_deltas(parent(open_content(RevisionContent(registry, version, detail.manifest))))

    def reader(entry: FileEntry) -> Callable[[int], Iterator[bytes]]:
        return lambda start: registry.files.read(version.name, version.digest, entry.path, start)

    with tempfile.TemporaryDirectory(prefix="adaptry-") as folder:
        for entry in detail.manifest.files:
            if entry.path in (CONFIG, WEIGHTS):
                download(reader(entry), entry, Path(folder) / entry.path, no_progress, DEFAULT_RETRY)
        yield open_adapter_deltas(parent(open_dir(folder)))
