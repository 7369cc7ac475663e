"""Sends a revision to a registry: a small one in one request, a large one file by file and resumable."""

from __future__ import annotations

from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.manifest import Manifest
from adaptry.core.progress import Progress
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer.file_upload import read_file
from adaptry.operations.transfer.files import upload_missing
from adaptry.operations.transfer.retry import RetryPolicy, with_retries
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, PushResult
from adaptry.registry.versions import MAX_SENT


def send_revision(
    registry: Registry,
    name: AdapterName,
    content: Content,
    manifest: Manifest,
    options: PushOptions,
    progress: Progress,
    retry: RetryPolicy,
    stored: frozenset[Digest] = frozenset(),
) -> PushResult:
    """Sends the files that are not `stored`, and the manifest, which together become a version. Raises the
    errors of `versions.put` and `upload`.
    """
    if manifest.size <= MAX_SENT:
        try:
            return _send_whole(registry, name, content, manifest, options, progress, retry)
        except NotFound:  # an older server, or the adapter has to be created first
            if not options.create and not _exists(registry, name):
                raise
    upload_missing(registry, name, content, manifest, progress, retry, stored)
    return registry.versions.put(name, manifest.to_bytes(), options)


def _send_whole(
    registry: Registry,
    name: AdapterName,
    content: Content,
    manifest: Manifest,
    options: PushOptions,
    progress: Progress,
    retry: RetryPolicy,
) -> PushResult:
    files = [read_file(content, entry.path, progress) for entry in manifest.files]
    return with_retries(
        lambda: registry.versions.put_with_files(name, manifest.to_bytes(), options, files), retry
    )


def _exists(registry: Registry, name: AdapterName) -> bool:
    try:
        registry.adapters.get(name)
    except NotFound:
        return False
    return True
