"""Stores the files of a large adapter in one pass over their bytes.

A push over HTTP reads its files twice: for their digests, and to send them. Here they are copied, hashed,
flushed and inspected at the same time. As in a small push, they have no owner until the caller's transaction,
so a sweep may delete them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from adaptry.adapters.content import Content
from adaptry.adapters.inspection.growing_file import GrowingFileInspection
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.adapters.streaming_digest import StreamingWeightsDigest
from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.failpoints import reach
from adaptry.core.files.background_io import BackgroundHasher
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import MAX_FILE
from adaptry.core.progress import Progress
from adaptry.core.refs import AdapterName
from adaptry.storage.blobs import StagedBlob
from adaptry.storage.catalog import damage, files, inspections
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.quotas import require_bytes
from adaptry.storage.local.small_files import add_owner, require_room

_PARTS, _SAMPLE = 4, 4096  # how many parts of a file are compared with a stored one, by their last bytes


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A stored file, with its weights digest and its inspection if they were computed."""

    digest: Digest
    size: int
    weights: Digest | None
    inspection: WeightsInspection | None


@dataclass(frozen=True)
class Ingestion:
    """The files of `content`, for the adapter `name`."""

    context: RegistryContext
    name: AdapterName
    content: Content
    progress: Progress

    def is_worthwhile(self, tx: Reads) -> bool:
        """Whether the adapter probably lacks the files; otherwise, hashing them costs less than storing them
        again. After further training, a version's files have the same sizes as those of the previous version,
        but other bytes.

        Raises `QuotaExceeded`, `Busy`.
        """
        sizes = self.content.sizes
        largest = max(sizes, key=sizes.__getitem__, default=None)
        if not self.context.blobs.is_on_this_machine or largest is None or sizes[largest] > MAX_FILE:
            return False
        if any(
            self._samples_match(largest, digest) for digest in files.of_size(tx, self.name, sizes[largest])
        ):
            return False
        require_bytes(self.context, tx, self.name.namespace, sum(sizes.values()))
        return True

    def _samples_match(self, path: str, digest: Digest) -> bool:
        """Whether a file equals a stored one of the same size in a few sampled places."""
        size = self.content.sizes[path]
        places = [max(0, size * part // _PARTS - _SAMPLE) for part in range(1, _PARTS + 1)]
        with suppress(NotFound):
            return all(
                self.content.read(path, place, _SAMPLE) == self.context.blobs.read(digest, place, _SAMPLE)
                for place in places
            )
        return False

    def store(self) -> Mapping[str, StoredFile]:
        """Puts the bytes on the disk. Raises `StorageFull`; `Unavailable` while they are being deleted."""
        context, sizes = self.context, self.content.sizes
        context.upload_cleanup.run_once(context.catalog, context.blobs, context.clock())
        context.blobs.require_room(sum(sizes.values()))
        reach("uploads.after_open")
        context.inspector.prepare(max(sizes.values(), default=0), self.name.namespace)
        with ThreadPoolExecutor(1, "inspection") as thread:
            stored = {path: self._store_file(path, thread) for path in sizes}
        reach("uploads.after_publish")
        return stored

    def add_ownership(self, tx: Transaction, stored: Mapping[str, StoredFile]) -> None:
        """Makes the adapter the owner of the stored bytes. Raises the errors of `add_owner`."""
        add_owner(self.context, tx, self.name, {file.digest: file.size for file in stored.values()})
        for file in stored.values():
            if file.weights is not None:
                files.store_weights_digest(tx, file.digest, file.weights)
            if file.inspection is not None:
                inspections.store(tx, file.digest, inspections.EncodedInspection.of(file.inspection))
        files.clear_unneeded(tx, self.name, [file.digest for file in stored.values()])

    def _store_file(self, path: str, thread: ThreadPoolExecutor) -> StoredFile:
        weights = StreamingWeightsDigest(self.content.sizes[path])
        inspection: WeightsInspection | None = None
        with self.context.blobs.staging(self.context.blobs.new_key()) as staged:
            inspecting = self._begin_inspection(staged, thread)
            try:
                with BackgroundHasher(weights.update) as hasher:
                    for_inspection = partial(_advance, inspecting, weights, staged)
                    staged.append(0, self._hashing_chunks(path, hasher, for_inspection))
                for_inspection()
                digest = self._publish(staged)
            except BaseException:
                staged.discard()
                raise
            finally:
                if inspecting:
                    inspection = inspecting.result()  # it reads the open file
            return StoredFile(digest, staged.offset, weights.digest(), inspection)

    def _hashing_chunks(
        self, path: str, hasher: BackgroundHasher, on_written: Callable[[], None]
    ) -> Iterator[bytes]:
        done, size = 0, self.content.sizes[path]
        for chunk in self.content.chunks(path):
            hasher.update(memoryview(chunk))
            yield chunk
            on_written()
            done += len(chunk)
            self.progress(f"storing {path}", done, size)

    def _begin_inspection(
        self, staged: StagedBlob, thread: ThreadPoolExecutor
    ) -> GrowingFileInspection | None:
        if staged.descriptor is None:
            return None
        return GrowingFileInspection(self.context.inspector, thread, staged.descriptor, self.name.namespace)

    def _publish(self, staged: StagedBlob) -> Digest:
        digest = staged.digest()
        with self.context.catalog.read_prepared() as tx:
            require_room(self.context, tx, self.name, {digest: staged.offset}, {})
            is_damaged = damage.damage_reason(tx, digest) is not None
        if is_damaged:
            self.context.blobs.set_aside(digest)  # kept for inspection, as for any upload
        staged.publish(digest)
        return digest


def _advance(
    inspecting: GrowingFileInspection | None, weights: StreamingWeightsDigest, staged: StagedBlob
) -> None:
    """Continues the inspection with the bytes that have been written, once the header is known."""
    if inspecting and weights.header:
        inspecting.advance(weights.header, staged.offset)
