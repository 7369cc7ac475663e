"""Memory that the C library keeps for a server's threads."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # mallopt(3), in glibc
_ARENAS = 2


def use_few_arenas() -> None:
    """Makes all threads share two heaps. By default, glibc gives each of the first dozen threads a heap,
    which keeps freed memory: several megabytes after a minute of pushes. Without glibc this does nothing.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    except (AttributeError, OSError, TypeError):
        return
