"""Digests and inspections of weights that were computed as an upload arrived, kept until it is finished and
its bytes are verified.

This is only an optimisation: bytes that are not cached, or that arrived through another process, are read
again on admission.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from adaptry.adapters.inspection.result import WeightsInspection

if TYPE_CHECKING:
    from adaptry.adapters.streaming_digest import StreamingWeightsDigest

_CACHE_SIZE = 32

InspectionResult = Callable[[], WeightsInspection | None]
"""Waits for an inspection and returns its result; None if it failed."""


class IncrementalDigests:
    """The digests by upload session, shared by the registries of one process. Safe to use from many
    threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[str, StreamingWeightsDigest] = OrderedDict()
        self._inspections: OrderedDict[str, InspectionResult] = OrderedDict()

    def resume(self, id: str, offset: int, size: int) -> StreamingWeightsDigest | None:
        """The hash state for the bytes from `offset` on; None if this process did not receive all bytes
        before it.
        """
        with self._lock:
            kept = self._kept.pop(id, None)
        if offset == 0:
            from adaptry.adapters.streaming_digest import StreamingWeightsDigest  # few commands need it

            return StreamingWeightsDigest(size)
        return kept if kept and kept.position == offset else None

    def put(self, id: str, weights: StreamingWeightsDigest, offset: int) -> None:
        """Keeps the state until the session continues at `offset`, or `take` is called."""
        if weights.position != offset:
            return  # a piece was hashed but could not be written
        with self._lock:
            self._kept[id] = weights
            while len(self._kept) > _CACHE_SIZE:
                self._kept.popitem(last=False)

    def put_inspection(self, id: str, result: InspectionResult) -> None:
        """Keeps the inspection of the complete file, which may still be running, until `pop_inspection`."""
        with self._lock:
            self._inspections[id] = result
            while len(self._inspections) > _CACHE_SIZE:
                self._inspections.popitem(last=False)

    def pop_inspection(self, id: str) -> WeightsInspection | None:
        """Waits for the inspection and returns its result; None if it failed or was not kept."""
        with self._lock:
            result = self._inspections.pop(id, None)
        return result() if result else None

    def pop(self, id: str) -> StreamingWeightsDigest | None:
        with self._lock:
            return self._kept.pop(id, None)
