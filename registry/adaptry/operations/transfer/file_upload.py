"""Uploads one file to a registry, resuming an earlier partial upload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.errors import Busy, Conflict, DigestMismatch, NotFound, ReadOnly, StorageFull, Unavailable
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.transfer.retry import DEFAULT_RETRY, Failures, RetryPolicy
from adaptry.registry.files import Files, Owner
from adaptry.registry.interface import Registry

if TYPE_CHECKING:
    from adaptry.registry.records import UploadInfo


def upload(
    registry: Registry,
    owner: Owner,
    content: Content,
    path: str,
    digest: Digest,
    progress: Progress | None = None,
    retry: RetryPolicy = DEFAULT_RETRY,
    earlier: str | None = None,
) -> None:
    """Uploads the file `path` of `content` for `owner`, resuming an earlier partial upload. `earlier`: the id
    of one that was begun without a digest.

    Raises `DigestMismatch` if the file does not have (or no longer has) this `digest`, `StorageFull`,
    `ReadOnly`, `Conflict` immediately if `owner` cannot have files (it is the name of a base), `Unavailable`
    or `Conflict` after too many consecutive tries without progress, and `Busy` after too long a wait for an
    upload slot.
    """
    size = content.sizes[path]
    furthest, failures, queued = -1, Failures(retry), 0.0
    while True:
        session: UploadInfo | None = None
        try:
            session = registry.uploads.open(owner, digest, size, earlier)
            if session.offset > furthest:
                furthest = session.offset
                failures.reset()
            if session.offset < size:
                rest = _with_progress(
                    content.chunks(path, session.offset), path, session, progress or no_progress
                )
                session = registry.uploads.append(session, session.offset, rest, size - session.offset)
            registry.uploads.finish(session)
            return
        except (StorageFull, ReadOnly, DigestMismatch):
            raise
        except Busy as busy:
            queued = retry.wait_in_queue(busy, queued)
            continue
        except (Unavailable, Conflict, NotFound) as error:
            if isinstance(error, NotFound | Conflict) and session is None:
                raise  # the owner is missing: trying again does not help
            failures.add(error, may_have_progressed=session is not None)
        failures.wait()
        if _is_stored(registry.files, owner, digest):
            return


def with_progress(
    chunks: Iterator[bytes], text: str, start: int, size: int, progress: Progress
) -> Iterator[bytes]:
    """Yields the same chunks, and reports progress after each."""
    done = start
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        progress(text, done, size)


def read_file(content: Content, path: str, progress: Progress) -> bytes:
    """All bytes of a small file."""
    size = content.sizes[path]
    return b"".join(with_progress(content.chunks(path), f"uploading {path}", 0, size, progress))


def _with_progress(
    chunks: Iterator[bytes], path: str, session: UploadInfo, progress: Progress
) -> Iterator[bytes]:
    return with_progress(chunks, f"uploading {path}", session.offset, session.size, progress)


def _is_stored(files: Files, owner: Owner, digest: Digest) -> bool:
    """Whether the file is stored after all: another client has sent it, or only the response was lost."""
    try:
        return files.has(owner, digest)
    except Unavailable:
        return False
