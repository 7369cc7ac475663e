"""Sends the largest file while hashing it, so it is read once and the server does not wait for the digest.

If the connection breaks, the file is hashed to its end, and the upload continues like any other. If the
client is killed before it knows the digest, the upload cannot be resumed, so larger files are hashed first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256

from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Conflict, DigestMismatch, Invalid, NotFound, Unavailable
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.progress import Progress
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer.file_upload import upload, with_progress
from adaptry.operations.transfer.files import hash_file, is_stored
from adaptry.operations.transfer.retry import RetryPolicy, with_retries
from adaptry.registry.interface import Registry
from adaptry.registry.records import UploadInfo
from adaptry.registry.versions import MAX_SENT

MAX_BYTES = 256 << 20
"""Size in bytes of the largest file that is sent before its digest is known: hashing it takes a fraction of a
second, sending it again a few.
"""

_CHECK_FIRST_ABOVE = 64 << 10
"""Total size in bytes of the small files above which the registry is asked first which of them it has; below,
sending them takes no longer than asking.
"""


def upload_unhashed(
    registry: Registry, name: AdapterName, content: Content, progress: Progress, retry: RetryPolicy
) -> dict[str, Digest]:
    """Uploads the largest file while hashing it. If the other files are small, they are uploaded first;
    otherwise they would wait while the server's disk stores the large one. Returns the digests of the files
    that the registry now has: none if the largest file is too small or too large, and only those of the other
    files if the registry requires a digest first.

    Raises the errors of `upload`, and those of `progress`.
    """
    sizes = content.sizes
    largest = max(sizes, key=sizes.__getitem__)
    if not MAX_SENT < sizes[largest] <= MAX_BYTES:
        return {}
    others = sorted(sizes.keys() - {largest})
    digests: dict[str, Digest] = {}
    if sum(sizes[path] for path in others) <= MAX_SENT:
        digests.update(_send_small_files(registry, name, content, others, progress, retry))
    if (session := _opened(registry, name, sizes[largest])) is None:
        return digests
    sent = _send(registry, session, content, largest, progress)
    digests[largest] = sent or hash_file(content, largest, progress)
    if sent is None or not _try_finish(registry, session, sent):
        upload(registry, name, content, largest, digests[largest], progress, retry, session.id)
    return digests


def _send_small_files(
    registry: Registry,
    name: AdapterName,
    content: Content,
    paths: Sequence[str],
    progress: Progress,
    retry: RetryPolicy,
) -> dict[str, Digest]:
    """Sends small files that the registry may lack; returns the digests of all."""
    files = {path: b"".join(content.chunks(path)) for path in paths}
    digests = {path: Digest.of(data) for path, data in files.items()}
    if sum(map(len, files.values())) > _CHECK_FIRST_ABOVE:
        files = {path: data for path, data in files.items() if not is_stored(registry, name, digests[path])}
    if files:
        with_retries(lambda: registry.uploads.put_all(name, [*files.values()]), retry)
    for path, data in files.items():
        progress(f"uploading {path}", len(data), len(data))
    return digests


def _opened(registry: Registry, name: AdapterName, size: int) -> UploadInfo | None:
    try:
        return registry.uploads.open(name, None, size)
    except (Invalid, Conflict, NotFound, Unavailable):  # `upload` reports other faults
        return None


def _try_finish(registry: Registry, session: UploadInfo, digest: Digest) -> bool:
    """Whether the upload was finished. If not, `upload` continues it, and reports the fault if it persists.
    Raises `DigestMismatch`.
    """
    try:
        registry.uploads.finish(session, digest)
    except DigestMismatch:
        raise
    except (Invalid, Conflict, NotFound, Unavailable):
        return False
    return True


def _send(
    registry: Registry, session: UploadInfo, content: Content, path: str, progress: Progress
) -> Digest | None:
    """The digest of the file after all of it was sent; None if the connection broke earlier."""
    hasher = sha256()

    def hashed(beside: BackgroundHasher) -> Iterator[bytes]:
        for chunk in with_progress(content.chunks(path), f"uploading {path}", 0, session.size, progress):
            beside.update(memoryview(chunk))
            yield chunk

    try:
        with BackgroundHasher(hasher.update) as beside:
            sent = registry.uploads.append(session, 0, hashed(beside), session.size)
    except (Unavailable, Conflict, NotFound):
        return None
    except BaseException:  # without a digest, the upload cannot be resumed
        with suppress(AdaptryError):
            registry.uploads.drop(session.id)
        raise
    return Digest(hasher.hexdigest()) if sent.offset == session.size else None
