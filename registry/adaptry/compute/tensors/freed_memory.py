"""Keeps the memory of temporary arrays and tensors in the process."""

from __future__ import annotations

import numpy as np


def keep_freed_memory() -> None:
    """Makes the C library reuse freed memory instead of returning it to the kernel: clearing fresh pages for
    every temporary array or tensor took longer than the arithmetic.

    When glibc frees a mapped block of up to 32 MiB, it serves blocks up to that size from its heaps from then
    on, and keeps twice as much free memory there (mallopt(3), M_MMAP_THRESHOLD). Elsewhere this does nothing.
    """
    np.empty(31 << 20, np.uint8)
