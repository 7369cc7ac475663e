"""Limits the memory that the C library holds: in arenas for threads, and in blocks that were freed."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_M_ARENA_MAX = -8  # mallopt(3), in glibc
_MAX_ARENAS = 1
_MIN_GROWTH = 8 << 20
_MIN_FREED = 2 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MISSING = (AttributeError, OSError, TypeError)  # without glibc, or without /proc


def use_one_heap() -> None:
    """Makes all threads share one heap. By default, glibc gives each of the first dozen threads a heap, which
    keeps freed memory: several megabytes after a minute of pushes. Without glibc this does nothing.

    Threads seldom wait for the heap: Python's small objects are not in it, and each thread keeps some freed
    blocks for itself. With two heaps, searches take the same processor time (1.26 ms), and 2 MB more memory
    is used.
    """
    with suppress(*_MISSING):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _MAX_ARENAS)


class FreedMemory:
    """Returns freed memory to the system. glibc itself does this only at the end of a heap: after the
    admission of an adapter with 89,088 tensors, it kept 76 MB. `free_more` is called first.
    """

    def __init__(self, free_more: Callable[[], object] = lambda: None) -> None:
        self._free_more = free_more
        self._least: int | None = None  # bytes of memory after it was returned
        self._returned = 0  # bytes of free blocks whose memory was returned and has not been used since

    def return_to_system(self) -> None:
        """Returns memory if the process has grown by `_MIN_GROWTH` bytes since the last time, or if at least
        `_MIN_FREED` bytes were freed; otherwise it does nothing, since returning memory takes milliseconds.
        Does nothing without glibc.
        """
        self._free_more()
        with suppress(*_MISSING):
            size, free = resident_bytes(), _free_bytes()
            self._returned = min(self._returned, free)
            if (
                self._least is not None
                and size - self._least < _MIN_GROWTH
                and free - self._returned < _MIN_FREED
            ):
                self._least = min(self._least, size)
                return
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            self._least, self._returned = resident_bytes(), _free_bytes()


class _Mallinfo(ctypes.Structure):
    """The result of mallinfo2(3). `fordblks` are the bytes of free blocks in all heaps."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def _free_bytes() -> int:
    """The bytes of glibc's free blocks, including those whose memory was returned; 0 before glibc 2.33."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = _Mallinfo
    return int(mallinfo().fordblks)


def resident_bytes() -> int:
    """The memory of this process. Raises `OSError` without /proc."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
