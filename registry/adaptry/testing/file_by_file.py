"""Pushes a small adapter the way large ones are pushed: file by file, in sessions that can be resumed, or in
one pass over its files.
"""

from __future__ import annotations

from adaptry.adapters.adapter import Adapter
from adaptry.core.manifest import Manifest
from adaptry.core.progress import no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.base_recognition import declared_base
from adaptry.operations.transfer.files import hash_files, upload_missing
from adaptry.operations.transfer.retry import DEFAULT_RETRY, RetryPolicy
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, PushResult


def push_file_by_file(
    registry: Registry, adapter: Adapter, name: AdapterName, retry: RetryPolicy = DEFAULT_RETRY
) -> PushResult:
    """Pushes the files one by one. Raises the errors of `push`."""
    files = hash_files(adapter.content, no_progress)
    manifest = Manifest.of(files, base=declared_base(adapter).claim)
    upload_missing(registry, name, adapter.content, manifest, no_progress, retry)
    return registry.versions.put(name, manifest.to_bytes(), PushOptions(reuse=True))


def push_in_one_pass(
    registry: Registry, adapter: Adapter, name: AdapterName, retry: RetryPolicy = DEFAULT_RETRY
) -> PushResult:
    """Pushes the files in one pass over their bytes. Raises the errors of `push`."""
    stored = registry.uploads.ingest(name, adapter.content)
    if stored is None:
        return push_file_by_file(registry, adapter, name, retry)
    sizes = adapter.content.sizes
    files = {path: (sizes[path], digest) for path, digest in stored.items()}
    manifest = Manifest.of(files, base=declared_base(adapter).claim)
    return registry.versions.put(name, manifest.to_bytes(), PushOptions(reuse=True))
