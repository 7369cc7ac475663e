"""How many threads numpy's matrix products use."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np


@contextlib.contextmanager
def single_blas_threads() -> Iterator[None]:
    """Limits numpy's BLAS to one thread for each calling thread during the block, since its own threads wait
    for each other, and restores the setting. Only for the OpenBLAS in numpy's wheels for Linux; other builds
    keep their setting.
    """
    library = _openblas()
    if library is None:
        yield
        return
    before = library.scipy_openblas_get_num_threads64_()
    library.scipy_openblas_set_num_threads64_(1)
    try:
        yield
    finally:
        library.scipy_openblas_set_num_threads64_(before)


@cache
def _openblas() -> ctypes.CDLL | None:
    folder = Path(np.__file__).parent.with_name("numpy.libs")
    for path in folder.glob("libscipy_openblas64_*"):
        return ctypes.CDLL(str(path))  # loaded already, with numpy
    return None
