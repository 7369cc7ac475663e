"""Adaptry: a registry and lifecycle service for PEFT adapters.

    import adaptry
    registry = adaptry.connect()
    adaptry.push(registry, adaptry.open_dir("out"), "acme/tone")

Importing this costs nothing: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptry.adapters.adapter import Adapter, open_dir
    from adaptry.core.refs import Ref
    from adaptry.integrations.inprocess import load
    from adaptry.operations.transfer import pull, push
    from adaptry.storage.connect import connect

_LAZY_MODULES = {
    "Adapter": "adaptry.adapters.adapter",
    "Ref": "adaptry.core.refs",
    "connect": "adaptry.storage.connect",
    "load": "adaptry.integrations.inprocess",
    "open_dir": "adaptry.adapters.adapter",
    "pull": "adaptry.operations.transfer",
    "push": "adaptry.operations.transfer",
}
__all__ = ["Adapter", "Ref", "connect", "load", "open_dir", "pull", "push"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """(`Any`: whatever the name stands for.)"""
    if name in _LAZY_MODULES:
        return getattr(importlib.import_module(_LAZY_MODULES[name]), name)
    raise AttributeError(f"module 'adaptry' has no attribute {name!r}")
