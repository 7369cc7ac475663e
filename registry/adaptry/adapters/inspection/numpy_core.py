"""Numpy's compiled functions without its Python modules, which take 9 MB and most of numpy's import time.

Numpy does not promise that this works. If it does not, or numpy is older than 2, all of numpy is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Literal

_COMPILED = "_multiarray_umath"


def use_compiled_numpy(folder: str) -> None:
    """Makes `import numpy` return the compiled functions of the numpy in `folder`, for the whole process."""
    root = Path(folder, "numpy")
    numpy, core = _package("numpy", root), _package("numpy._core", root / "_core")
    with suppress(ImportError):
        compiled = importlib.import_module(f"{core.__name__}.{_COMPILED}")
        numpy.__dict__.update({name: value for name, value in vars(compiled).items() if name[0] != "_"})
        numpy.__dict__["seterr"] = _seterr
        return
    for name in (numpy.__name__, core.__name__):
        del sys.modules[name]


def _seterr(*, all: Literal["ignore"]) -> None:
    """Stands in for `numpy.seterr`: by default, the compiled functions report overflow as Python's
    warnings.
    """
    warnings.simplefilter(all, RuntimeWarning)


def _package(name: str, folder: Path) -> ModuleType:
    """An empty package, so that its modules can be imported without running its own code."""
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    return package
