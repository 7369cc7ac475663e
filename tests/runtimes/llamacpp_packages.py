"""The packages of llama.cpp's checkout: its converter needs its own gguf, which is newer than the released
one.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def use_packages_of(converter: str) -> None:
    """Imports gguf from beside the converter, and makes its other packages importable."""
    folder = Path(converter).parent
    sys.path.insert(0, str(folder / "gguf-py"))
    importlib.import_module("gguf")
    sys.path[0] = str(folder)
