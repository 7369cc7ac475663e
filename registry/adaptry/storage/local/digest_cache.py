"""Digests of weights that were hashed while they streamed in, kept until its upload is finished and its bytes
are verified.

Only a saving: what is forgotten here, or arrived through another process, is read again when it is admitted.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from adaptry.adapters.streaming_digest import StreamingWeightsDigest

_KEPT = 32


class IncrementalDigests:
    """By upload session; shared by the registries of one process. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[str, StreamingWeightsDigest] = OrderedDict()

    def resume(self, id: str, offset: int, size: int) -> StreamingWeightsDigest | None:
        """What to feed the bytes from `offset` on to; None if this process did not see all those before."""
        with self._lock:
            kept = self._kept.pop(id, None)
        if offset == 0:
            return StreamingWeightsDigest(size)
        return kept if kept and kept.position == offset else None

    def put(self, id: str, weights: StreamingWeightsDigest, offset: int) -> None:
        """Until the session goes on at `offset`, or `take`."""
        if weights.position != offset:
            return  # a piece was weighed and could not be written
        with self._lock:
            self._kept[id] = weights
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def pop(self, id: str) -> StreamingWeightsDigest | None:
        with self._lock:
            return self._kept.pop(id, None)
