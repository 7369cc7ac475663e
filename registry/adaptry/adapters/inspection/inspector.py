"""Measures the tensors of a weights file in a limited child process, and keeps a few children for reuse.

A child receives an open file, or bytes that the caller reads. It opens nothing itself and has no
credentials. If it fails in any way, the caller gets `Unavailable`, and never a partial result.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

from adaptry.adapters.header import TensorInfo
from adaptry.adapters.inspection.fair_slots import FairSlots
from adaptry.adapters.inspection.process import LARGE, InspectionProcess, numpy_folder
from adaptry.adapters.inspection.protocol import MAX_TENSORS, SHORT
from adaptry.adapters.inspection.result import TensorStatistics, WeightsInspection
from adaptry.core.errors import CorruptData, Unavailable
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout, check_exit

_SECONDS = 10.0  # of processor time, for a file of any size
_PLAIN_RATE, _NUMPY_RATE = 2 << 20, 20 << 20  # bytes per second: a tenth of the slowest that was measured
_WALL_FACTOR = 6.0
TIMEOUT = 300.0
"""Seconds that a caller waits for its turn."""

WeightsSource = int | Callable[[int], Iterable[bytes]]
"""A weights file: its descriptor, or a function that yields its bytes from a position on, repeatedly."""


class InspectorBusy(Unavailable):
    """No child was free in time."""


class Inspector:
    """Inspects files' tensors, with at most `processes` children at once, which tenants take in turn.

    Thread-safe. Children start on demand. They end after 5 seconds without work, on `close`, and when this
    process ends for any reason. `started` is a child that is already running.
    """

    def __init__(self, processes: int | None = None, started: InspectionProcess | None = None) -> None:
        processes = processes or max(2, min(8, os.cpu_count() or 1))
        self._slots = FairSlots(processes)
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[_Child] = [_Child(started)] if started else []
        self._preparation: threading.Thread | None = None
        self._end = weakref.finalize(self, _end_all, self._idle)

    def inspect(
        self,
        tensors: Mapping[str, TensorInfo],
        source: WeightsSource,
        tenant: str = "",
        timeout: float = TIMEOUT,
    ) -> WeightsInspection:
        """Measures every tensor once, in the order of their bytes, which are contiguous.

        Raises `Unavailable` if the child crashed, was killed or reached a limit, `InspectorBusy` if no child
        was free for `timeout` seconds, and `CorruptData` if there are fewer bytes than the header declares.
        """
        if preparation := self._preparation:
            preparation.join()  # before taking a slot, which the preparation may need itself
        found: dict[str, TensorStatistics] = {}
        for batch in _batches(tensors) if isinstance(source, int) else [tensors]:
            answers = self._guarded(partial(self._ask, batch, source), tenant, timeout)
            found |= zip(batch, answers, strict=True)
        return WeightsInspection(found)

    def _guarded(
        self, ask: Callable[[], list[TensorStatistics]], tenant: str, timeout: float
    ) -> list[TensorStatistics]:
        """Runs in the tenant's turn, and raises the errors of `inspect`."""
        try:
            with self._slots.hold(tenant, timeout):
                return ask()
        except TimeoutError:
            raise InspectorBusy(
                "too many weights are being inspected now; nothing was lost, try again in a minute"
            ) from None
        except (ProcessFailed, ProcessTimeout) as error:
            raise Unavailable(
                f"the weights could not be inspected ({error}); the files are kept, so try again"
            ) from error

    def prepare(self, size: int, tenant: str = "") -> None:
        """Starts a child in the background for a file of `size` bytes, if none is idle and a slot is free.
        Returns at once; `inspect` waits for the child.
        """

        def start() -> None:
            with suppress(Unavailable):  # `inspect` raises it again if the problem persists
                self._guarded(lambda: self._ask({}, lambda start: (), size), tenant, 0)

        with self._lock:
            if self._idle or (self._preparation and self._preparation.is_alive()):
                return
            self._preparation = threading.Thread(target=start, name="inspector", daemon=True)
            self._preparation.start()

    def close(self) -> None:
        """Ends the children that are idle. The inspector can be used again."""
        with self._lock:
            _end_all(self._idle)

    def _ask(
        self, tensors: Mapping[str, TensorInfo], source: WeightsSource, expected: int = 0
    ) -> list[TensorStatistics]:
        while child := self._take_idle():
            try:
                return self._measured(child, tensors, source, expected)
            except _ChildExited:
                continue
        return self._measured(_Child(InspectionProcess()), tensors, source, expected)

    def _measured(
        self, child: _Child, tensors: Mapping[str, TensorInfo], source: WeightsSource, expected: int
    ) -> list[TensorStatistics]:
        try:
            answers = child.measure(tensors, source, expected)
        except BaseException:
            child.process.end()
            raise
        with self._lock:
            self._idle.append(child)
        return answers

    def _take_idle(self) -> _Child | None:
        with self._lock:
            if self._owner != os.getpid():  # after a fork, the children belong to the parent
                self._owner = os.getpid()
                self._end.detach()
                self._idle = []
                self._end = weakref.finalize(self, _end_all, self._idle)
            while self._idle:
                child = self._idle.pop()
                if child.process.is_alive:
                    return child
                child.process.end()
            return None


class _ChildExited(Exception):
    """A child of the pool had already ended by itself before it read the request."""


class _ReplyTimeout(Exception):
    """A child has not answered within its time."""


class _Child:
    """One process and its pipes; used by one thread at a time."""

    def __init__(self, process: InspectionProcess) -> None:
        self.process = process
        self._socket = process.requests
        self._process = process.process
        self._has_answered = False
        self._deadline = 0.0

    def measure(
        self, tensors: Mapping[str, TensorInfo], source: WeightsSource, expected: int = 0
    ) -> list[TensorStatistics]:
        """Measures these tensors, and prepares for a file of `expected` bytes.

        Raises `ProcessFailed`, `ProcessTimeout`, `CorruptData`, and the errors of `source`; then the child is
        lost.
        """
        size = sum(info.size for info in tensors.values())
        numpy = numpy_folder() if max(size, expected) >= LARGE else ""
        seconds = _SECONDS + size / (_NUMPY_RATE if numpy else _PLAIN_RATE)
        start = next((info.start for info in tensors.values()), 0)
        listed = [(info.dtype, info.size) for info in tensors.values()]
        document = {"seconds": seconds, "numpy": numpy, "start": start, "tensors": listed}
        request = json.dumps(document).encode()
        self._deadline = time.monotonic() + 60 + seconds * _WALL_FACTOR
        try:
            files = [source] if isinstance(source, int) else []
            socket.send_fds(self._socket, [len(request).to_bytes(4, "big")], files)
            self._send_piece(request)
            if not isinstance(source, int):
                self._send(source(start), size)
            answer = self._answer()
        except (BrokenPipeError, ConnectionResetError):
            answer = None
        except _ReplyTimeout:
            self._process.kill()
            answer = None
        if answer is None:
            raise self._failure(seconds)
        self._has_answered = True
        return _parsed(answer, tensors)

    def _send(self, chunks: Iterable[bytes], size: int) -> None:
        sent = 0
        for chunk in chunks:
            self._send_piece(chunk)
            sent += len(chunk)
        if sent != size:
            raise CorruptData(f"a weights file ended after {sent:,} of {size:,} bytes of its tensors")

    def _send_piece(self, piece: bytes) -> None:
        self._socket.settimeout(self._remaining())
        try:
            self._socket.sendall(piece)
        except TimeoutError:
            raise _ReplyTimeout from None

    def _answer(self) -> bytes | None:
        """The answer, or None if the process ended first."""
        length = int.from_bytes(self._received(4), "big")
        if not 0 < length <= self.process.limits.answer:
            return None
        answer = self._received(length)
        return answer if len(answer) == length else None

    def _received(self, length: int) -> bytes:
        """The next bytes of the answer; fewer if the process has ended."""
        assert self._process.stdout
        source = self._process.stdout.fileno()
        ready = select.poll()
        ready.register(source, select.POLLIN)
        received = bytearray()
        while len(received) < length:
            if not ready.poll(self._remaining() * 1000):
                raise _ReplyTimeout
            piece = os.read(source, length - len(received))
            if not piece:
                break
            received += piece
        return bytes(received)

    def _remaining(self) -> float:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise _ReplyTimeout
        return seconds

    def _failure(self, seconds: float) -> Exception:
        self._wait_for_end()
        code = self._process.returncode
        if code == 0 and self._has_answered:
            return _ChildExited()
        if code == SHORT:
            return CorruptData(
                "a weights file is shorter than its header says; push its files again, or run"
                " `adaptry repair`"
            )
        try:
            check_exit(code, ProcessLimits(seconds, self.process.limits.memory))
        except (ProcessFailed, ProcessTimeout) as error:
            return error
        return ProcessFailed("the process ended without an answer")

    def _wait_for_end(self) -> None:
        """Waits briefly for a process whose pipes are closed, so that its exit code is not that of a later
        kill.
        """
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _batches(tensors: Mapping[str, TensorInfo]) -> Iterator[Mapping[str, TensorInfo]]:
    """Splits a file's tensors into requests."""
    items = iter(tensors.items())
    while batch := dict(islice(items, MAX_TENSORS)):
        yield batch


def _parsed(answer: bytes, tensors: Mapping[str, TensorInfo]) -> list[TensorStatistics]:
    found: list[Any] = json.loads(answer)  # `Any`: a list that our child wrote
    if len(found) != len(tensors):
        raise ProcessFailed(f"the process measured {len(found):,} of {len(tensors):,} tensors")
    return [TensorStatistics(*measured) for measured in found]


def _end_all(children: list[_Child]) -> None:
    while children:
        children.pop().process.end()
