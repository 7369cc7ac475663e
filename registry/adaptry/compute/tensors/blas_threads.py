"""Limits the number of threads that numpy's matrix products use."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np


def limit_blas_threads() -> None:
    """Limits numpy's BLAS to one thread from now on."""
    if (library := _openblas()) is not None:
        library.scipy_openblas_set_num_threads64_(1)


@contextlib.contextmanager
def single_blas_threads() -> Iterator[None]:
    """During the block, limits numpy's BLAS to one thread per calling thread, since its own threads wait for
    each other; then restores the setting. This works only for the OpenBLAS in numpy's Linux wheels. Other
    builds keep their setting.
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
