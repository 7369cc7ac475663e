"""The largest magnitude in some floats, as a whole number: their bits without the sign. With numpy, which is optional."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

Largest = Callable[[bytes, int], int]
"""`largest(data, width)`: over little-endian elements of `width` bytes."""


@cache
def largest_magnitude() -> Largest | None:
    """None where numpy is not installed."""
    try:
        import numpy as np
    except ImportError:
        return None
    words = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}

    def largest(data: bytes, width: int) -> int:
        words_of = np.frombuffer(data, words[width])
        magnitudes = words_of & words[width].type((1 << (8 * width - 1)) - 1)
        return int(magnitudes.max(initial=0))

    return largest
