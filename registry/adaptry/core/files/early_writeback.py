"""Starts writing a file to the disk while it is still being written to, so that the final flush is short.

`fdatasync` on a second thread would do the same, but waits for the file system's log each time, and takes
more processor time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache

_FLUSH_BYTES = 8 << 20
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE of Linux


class EarlyWriteback:
    """Starts writing the open file `descriptor` to the disk as it grows (on Linux only). Never waits, and
    reports no error: the caller's flush at the end does.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = 0
        self._has_started = False

    def add_written(self, size: int) -> None:
        """Counts `size` more bytes as written."""
        self._waiting += size
        if self._waiting >= _FLUSH_BYTES:
            self._start()

    def add_last(self) -> None:
        """Notes that all bytes have been written, at least for now."""
        if self._has_started and self._waiting:
            self._start()

    def _start(self) -> None:
        self._waiting, self._has_started = 0, True
        _start_writing()(self._descriptor)


@cache
def _start_writing() -> Callable[[int], None]:
    if sys.platform != "linux":
        return lambda descriptor: None
    import ctypes  # not needed for small files

    call = ctypes.CDLL(None).sync_file_range
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

    def start(descriptor: int) -> None:
        call(descriptor, 0, 0, _START_WRITING)  # the whole file: what is written already costs nothing

    return start
