"""A pool of child processes, each of which runs functions over untrusted bytes, one request after another.

The limits are those of `bounded`: a request that exceeds them ends its worker, and so does a crash. In any
case the caller gets a complete answer or an error. The caller's thread waits in system calls and does not
compete for the interpreter: it sends the bytes in one call, and reads the answer in large pieces.
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
from collections.abc import Sequence
from typing import IO, cast

from adaptry.core.processes.bounded import (
    ProcessFailed,
    ProcessLimits,
    check_exit,
    child_slot,
    start_bounded,
    wall_clock_limit,
)

_LIFETIME = ProcessLimits(seconds=1e7, memory=1 << 34)  # per worker; each request has its own


class WorkerPool:
    """Runs a module's `answer` in a worker. Safe for many threads.

    Workers start on demand. They end after half a minute without work, and when this process ends for any
    reason.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._end = weakref.finalize(self, _end_all, self._idle)

    def run(self, module: str, request: bytes, limits: ProcessLimits, arguments: Sequence[str] = ()) -> bytes:
        """Returns what the function `answer` of `module` returns for `request` and `arguments`.

        Raises `ProcessTimeout` if the worker used up its processor time, and `ProcessFailed` if it gave no
        answer within `limits` for any other reason.
        """
        with child_slot():
            while True:
                worker = self._take_idle() or _Worker()
                try:
                    answer = worker.ask(module, request, limits, arguments)
                except _WorkerExited:
                    worker.end()
                    continue
                except BaseException:
                    worker.end()
                    raise
                with self._lock:
                    self._idle.append(worker)
                return answer

    def _take_idle(self) -> _Worker | None:
        with self._lock:
            if self._owner != os.getpid():  # after a fork, the workers and their answers belong to the parent
                self._owner = os.getpid()
                self._end.detach()
                self._idle = []
                self._end = weakref.finalize(self, _end_all, self._idle)
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive:
                    return worker
                worker.end()
            return None


class _WorkerExited(Exception):
    """A worker of the pool had already ended by itself before it read the request."""


class _Worker:
    """One process and its pipes; used by one thread at a time."""

    def __init__(self) -> None:
        self._has_answered = False
        try:
            self._socket, theirs = socket.socketpair()
        except OSError as error:
            raise ProcessFailed(f"the process could not be started: {error}") from error
        with theirs:
            try:
                self._process = start_bounded(
                    "adaptry.core.processes.worker",
                    _LIFETIME,
                    stdin=theirs.fileno(),
                    needs_packages=True,
                )
            except ProcessFailed:
                self._socket.close()
                raise

    def ask(self, module: str, request: bytes, limits: ProcessLimits, arguments: Sequence[str]) -> bytes:
        """Sends a request and returns the answer. Raises `ProcessFailed` and `ProcessTimeout`, after which
        the worker cannot be used.
        """
        document = {"module": module, "arguments": arguments, "seconds": limits.seconds}
        order = json.dumps(document | {"memory": limits.memory, "size": len(request)}).encode()
        timeout = wall_clock_limit(limits)
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(len(order).to_bytes(4, "big") + order)
            self._socket.sendall(request)
        except TimeoutError:
            raise ProcessFailed(f"the process did not read its request within {timeout:.0f} s") from None
        except OSError:
            raise self._failure(limits) from None
        answer = self._answer(limits, timeout)
        self._has_answered = True
        return answer

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Kills the process and waits for it."""
        self._socket.close()
        with self._process:
            self._process.kill()

    def _answer(self, limits: ProcessLimits, timeout: float) -> bytes:
        until = time.monotonic() + timeout
        length = int.from_bytes(self._read(8, until, limits), "big")
        if length > limits.answer:
            raise ProcessFailed(f"the process returned {length:,} bytes; at most {limits.answer:,} are read")
        return self._read(length, until, limits)

    def _read(self, count: int, until: float, limits: ProcessLimits) -> bytes:
        """Reads `count` bytes of the answer. Raises `ProcessFailed` at `until`, if the child hangs."""
        output = cast(IO[bytes], self._process.stdout).fileno()
        waiting = select.poll()
        waiting.register(output, select.POLLIN)
        read = bytearray()
        while len(read) < count:
            if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
                raise ProcessFailed("the process did not answer in time")
            piece = os.read(output, count - len(read))
            if not piece:
                raise self._failure(limits)
            read += piece
        return bytes(read)

    def _failure(self, limits: ProcessLimits) -> Exception:
        """Why the process ended. Waits briefly, so that the exit code is the child's and not that of a
        kill.
        """
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode == 0 and self._has_answered:
            return _WorkerExited()
        check_exit(self._process.returncode, limits)
        return ProcessFailed("the process ended without an answer")


def _end_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end()


_POOL = WorkerPool()
run_in_worker = _POOL.run
