"""Pauses garbage collection during imports: collections would visit all imported objects and free nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pauses garbage collection during a block that mostly imports. If the block has imported anything, later
    collections skip all objects that exist at its end (`gc.freeze`).
    """
    if not gc.isenabled():
        yield
        return
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        gc.enable()
