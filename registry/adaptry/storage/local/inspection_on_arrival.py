"""Inspects the weights of an upload while its bytes arrive, so that admission finds the result.

This applies to uploads that arrive in one request at a store on this machine; admission inspects all others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore

from adaptry.adapters.inspection.growing_file import GrowingFileInspection
from adaptry.adapters.inspection.process import LARGE
from adaptry.adapters.streaming_digest import StreamingWeightsDigest
from adaptry.core.refs import AdapterName
from adaptry.storage.blobs import StagedBlob
from adaptry.storage.catalog.files import UploadSessionRecord
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.digest_cache import IncrementalDigests

_MAX_RUNNING = 8
"""How many uploads are inspected on arrival at once, with a thread and a descriptor each."""
_places = BoundedSemaphore(_MAX_RUNNING)


class InspectionOnArrival:
    """The inspection of one upload."""

    def advance(self) -> None:
        """Continues with the bytes that have been written. This one inspects nothing."""

    def keep(self, digests: IncrementalDigests, id: str) -> None:
        """Keeps the inspection until the upload `id` is finished. This class inspects nothing."""


class _RunningInspection(InspectionOnArrival):
    def __init__(
        self, growing: GrowingFileInspection, weights: StreamingWeightsDigest, staged: StagedBlob
    ) -> None:
        self.growing = growing
        self._weights = weights
        self._staged = staged

    def advance(self) -> None:
        if self._weights.header:
            self.growing.advance(self._weights.header, self._staged.offset)

    def keep(self, digests: IncrementalDigests, id: str) -> None:
        if self._weights.header:
            digests.put_inspection(id, self.growing.result)


@contextmanager
def inspection_on_arrival(
    context: RegistryContext,
    session: UploadSessionRecord,
    staged: StagedBlob,
    weights: StreamingWeightsDigest | None,
) -> Iterator[InspectionOnArrival]:
    """Inspects the bytes that are staged in the block. Bytes that are not inspected at its end are inspected
    later, while the file is flushed and the client finishes the upload.
    """
    owner = session.owner
    is_worthwhile = session.size >= LARGE and staged.offset == 0 and isinstance(owner, AdapterName)
    # Opened again, since a duplicate of the staging's descriptor would keep its lock.
    descriptor = None
    if is_worthwhile and weights is not None and _places.acquire(blocking=False):
        descriptor = staged.opened()
        if descriptor is None:
            _places.release()
    if descriptor is None or weights is None:
        yield InspectionOnArrival()
        return
    tenant = owner.namespace if isinstance(owner, AdapterName) else ""
    context.inspector.prepare(session.size, tenant)  # while the first bytes arrive
    thread = ThreadPoolExecutor(1, "inspection")
    growing = GrowingFileInspection(context.inspector, thread, descriptor, tenant)
    try:
        yield _RunningInspection(growing, weights, staged)
    finally:
        if staged.offset < session.size:
            growing.cancel()
        thread.submit(_end, descriptor)  # runs after all inspections on this thread
        thread.shutdown(wait=False)


def _end(descriptor: int) -> None:
    os.close(descriptor)
    _places.release()
