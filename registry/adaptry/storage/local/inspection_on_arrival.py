"""Inspects the weights of an upload while its bytes arrive, so that admission finds the result.

This applies to uploads that arrive in one request at a store on this machine; admission inspects all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from adaptry.adapters.inspection.growing_file import GrowingFileInspection
from adaptry.adapters.inspection.process import LARGE
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.adapters.streaming_digest import StreamingWeightsDigest
from adaptry.core.refs import AdapterName
from adaptry.storage.blobs import StagedBlob
from adaptry.storage.catalog.files import UploadSessionRecord
from adaptry.storage.local.context import RegistryContext


class InspectionOnArrival:
    """The inspection of one upload. `found`: its result, if the file is complete."""

    found: WeightsInspection | None = None

    def advance(self) -> None:
        """Continues with the bytes that have been written. This one inspects nothing."""


class _Running(InspectionOnArrival):
    def __init__(
        self, growing: GrowingFileInspection, weights: StreamingWeightsDigest, staged: StagedBlob
    ) -> None:
        self.growing = growing
        self._weights = weights
        self._staged = staged

    def advance(self) -> None:
        if self._weights.header:
            self.growing.advance(self._weights.header, self._staged.offset)


@contextmanager
def inspection_on_arrival(
    context: RegistryContext,
    session: UploadSessionRecord,
    staged: StagedBlob,
    weights: StreamingWeightsDigest | None,
) -> Iterator[InspectionOnArrival]:
    """Inspects the bytes that are staged in the block; at its end, waits for the result."""
    descriptor, owner = staged.descriptor, session.owner
    is_worthwhile = session.size >= LARGE and staged.offset == 0 and isinstance(owner, AdapterName)
    if not is_worthwhile or weights is None or descriptor is None:
        yield InspectionOnArrival()
        return
    tenant = owner.namespace if isinstance(owner, AdapterName) else ""
    with ThreadPoolExecutor(1, "inspection") as thread:
        growing = GrowingFileInspection(context.inspector, thread, descriptor, tenant)
        running = _Running(growing, weights, staged)
        try:
            yield running
        finally:
            running.found = growing.result()  # which reads the open file
