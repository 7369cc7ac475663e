"""Inspects a weights file while it is being written, a few tensors at a time.

Only bytes that have been written are read, from the file that holds them, so the results are those of the
complete file.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from adaptry.adapters.header import SafetensorsHeader, TensorInfo
from adaptry.adapters.inspection.inspector import Inspector
from adaptry.adapters.inspection.result import TensorStatistics, WeightsInspection
from adaptry.core.errors import AdaptryError

_BATCH = 16 << 20
"""Minimum size in bytes of the tensors of a request."""
_LAST_SECONDS = 1.0  # for the tensors that arrived last; a client's request must not wait in a queue


class GrowingFileInspection:
    """Inspects the open file `descriptor` on `thread`. The file must stay open until `result` has
    returned.
    """

    def __init__(
        self, inspector: Inspector, thread: ThreadPoolExecutor, descriptor: int, tenant: str
    ) -> None:
        self._inspector = inspector
        self._thread = thread
        self._descriptor = descriptor
        self._tenant = tenant
        self._header: SafetensorsHeader | None = None
        self._to_come: Iterator[tuple[str, TensorInfo]] = iter(())
        self._next: tuple[str, TensorInfo] | None = None
        self._batch: dict[str, TensorInfo] = {}
        self._requests: list[Future[WeightsInspection]] = []

    def advance(self, header: SafetensorsHeader, written: int) -> None:
        """Requests the tensors that end before the position `written`, if they are worth a request or are the
        last ones.
        """
        if self._header is None:
            self._header, self._to_come = header, iter(header.tensors.items())
            self._next = next(self._to_come, None)
        while self._next and self._next[1].end <= written:
            self._batch[self._next[0]] = self._next[1]
            self._next = next(self._to_come, None)
        if self._next is None or sum(info.size for info in self._batch.values()) >= _BATCH:
            self._submit()

    def result(self) -> WeightsInspection | None:
        """The results of all tensors; None if the file is incomplete, the inspector failed, or it needs
        longer than `_LAST_SECONDS`.
        """
        is_late = bool(wait(self._requests, _LAST_SECONDS).not_done)
        if is_late or any(request.cancelled() for request in self._requests):
            self.cancel()
            return None
        found: dict[str, TensorStatistics] = {}
        failures = [request.exception() for request in self._requests]
        for request, failure in zip(self._requests, failures, strict=True):
            if failure is not None and not isinstance(failure, AdaptryError):
                raise failure
            if failure is None:
                found |= request.result().tensors
        is_complete = self._header is not None and found.keys() == self._header.tensors.keys()
        return WeightsInspection(found) if is_complete else None

    def cancel(self) -> None:
        """Drops the requests that have not been started."""
        for request in self._requests:
            request.cancel()

    def _submit(self) -> None:
        if self._batch:
            tensors, self._batch = self._batch, {}
            self._requests.append(
                self._thread.submit(self._inspector.inspect, tensors, self._descriptor, self._tenant)
            )
