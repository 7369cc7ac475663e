"""Hashes the files of a revision, and uploads those that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.progress import Progress
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer.file_upload import upload, with_progress
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.interface import Registry
from adaptry.registry.versions import MAX_SENT


def hash_files(content: Content, progress: Progress) -> dict[str, tuple[int, Digest]]:
    """Size and digest of every file; reads everything once."""
    return {path: (size, hash_file(content, path, progress)) for path, size in content.sizes.items()}


@dataclass(frozen=True, slots=True)
class HashedFiles:
    """Size and digest of every file by path, and the digests of those that the registry has received."""

    digests: Mapping[str, tuple[int, Digest]]
    stored: frozenset[Digest] = frozenset()


def store_or_hash(
    registry: Registry, name: AdapterName, content: Content, progress: Progress, retry: RetryPolicy
) -> HashedFiles:
    """Hashes every file. For a large adapter, the same pass also stores the files, if the registry supports
    that, or sends the largest file, and the others if they are small.

    Raises the errors of `Uploads.ingest` and `upload_unhashed`.
    """
    sizes = content.sizes
    if sum(sizes.values()) <= MAX_SENT:
        return HashedFiles(hash_files(content, progress))
    stored = registry.uploads.ingest(name, content, progress)
    if stored is None:
        from adaptry.operations.transfer.unhashed_upload import upload_unhashed  # for large adapters only

        stored = upload_unhashed(registry, name, content, progress, retry)
    return HashedFiles(
        {
            path: (size, stored.get(path) or hash_file(content, path, progress))
            for path, size in sizes.items()
        },
        frozenset(stored.values()),
    )


def hash_file(content: Content, path: str, progress: Progress) -> Digest:
    hasher = sha256()
    with BackgroundHasher(hasher.update) as beside:
        for chunk in with_progress(content.chunks(path), f"hashing {path}", 0, content.sizes[path], progress):
            beside.update(memoryview(chunk))
    return Digest(hasher.hexdigest())


def upload_missing(
    registry: Registry,
    name: AdapterName,
    content: Content,
    manifest: Manifest,
    progress: Progress,
    retry: RetryPolicy,
    stored: frozenset[Digest] = frozenset(),
) -> None:
    """Uploads the files of `manifest` that the adapter lacks; those that are `stored` are not queried. Raises
    the errors of `upload`.
    """
    for entry in manifest.files:
        if entry.sha256 not in stored:
            upload_if_missing(registry, name, content, entry.path, entry.sha256, progress, retry)


def upload_if_missing(
    registry: Registry,
    name: AdapterName,
    content: Content,
    path: str,
    digest: Digest,
    progress: Progress,
    retry: RetryPolicy,
) -> None:
    """Uploads the file `path`, with this digest, unless the adapter has it. Raises the errors of `upload`."""
    if not is_stored(registry, name, digest):
        upload(registry, name, content, path, digest, progress, retry)


def is_stored(registry: Registry, name: AdapterName, digest: Digest) -> bool:
    """Whether the adapter has the file. An invisible adapter counts as empty; the upload checks rights."""
    try:
        return registry.files.has(name, digest)
    except NotFound:
        return False
