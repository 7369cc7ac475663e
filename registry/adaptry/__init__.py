"""Adaptry: a registry and lifecycle service for PEFT adapters.

    import adaptry

    with adaptry.connect() as registry:
        adaptry.push(registry, "out", "acme/tone", metrics={"accuracy": 0.91})
        print(adaptry.search(registry, "metric.accuracy>=0.9"))
        tensors = adaptry.load("acme/tone@1", registry=registry)

Importing this costs nothing: names are loaded when they are first used. docs/python.md describes each.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptry import errors
    from adaptry.adapters.adapter import Adapter, open_dir
    from adaptry.core.refs import Ref
    from adaptry.facade.aliases import promote, rollback
    from adaptry.facade.check import check
    from adaptry.facade.combine import combine, stack
    from adaptry.facade.compare import compare
    from adaptry.facade.convert import convert, resize
    from adaptry.facade.export import export
    from adaptry.facade.folders import import_folder, inspect_folder
    from adaptry.facade.lineage import lineage
    from adaptry.facade.merge import merge
    from adaptry.facade.registries import connect
    from adaptry.facade.search import search
    from adaptry.facade.states import revoke
    from adaptry.facade.transfer import pull, push
    from adaptry.integrations.inprocess import load
    from adaptry.registry.interface import Registry

__version__ = "0.1.0"
__all__ = [
    "Adapter",
    "Ref",
    "Registry",
    "__version__",
    "add_evidence",
    "check",
    "combine",
    "compare",
    "connect",
    "convert",
    "errors",
    "evidence",
    "export",
    "import_folder",
    "inspect_folder",
    "lineage",
    "load",
    "merge",
    "open_dir",
    "promote",
    "pull",
    "push",
    "resize",
    "revoke",
    "rollback",
    "search",
    "stack",
]
_LAZY_MODULES = {
    "Adapter": "adaptry.adapters.adapter",
    "Ref": "adaptry.core.refs",
    "Registry": "adaptry.registry.interface",
    "add_evidence": "adaptry.facade.evidence",
    "check": "adaptry.facade.check",
    "combine": "adaptry.facade.combine",
    "compare": "adaptry.facade.compare",
    "connect": "adaptry.facade.registries",
    "convert": "adaptry.facade.convert",
    "evidence": "adaptry.facade.evidence",
    "export": "adaptry.facade.export",
    "import_folder": "adaptry.facade.folders",
    "inspect_folder": "adaptry.facade.folders",
    "lineage": "adaptry.facade.lineage",
    "load": "adaptry.integrations.inprocess",
    "merge": "adaptry.facade.merge",
    "open_dir": "adaptry.adapters.adapter",
    "promote": "adaptry.facade.aliases",
    "pull": "adaptry.facade.transfer",
    "push": "adaptry.facade.transfer",
    "resize": "adaptry.facade.convert",
    "revoke": "adaptry.facade.states",
    "rollback": "adaptry.facade.aliases",
    "search": "adaptry.facade.search",
    "stack": "adaptry.facade.combine",
}


def __getattr__(name: str) -> Any:
    """(`Any`: whatever the name stands for.)"""
    if name == "errors":
        return importlib.import_module("adaptry.errors")
    if name in _LAZY_MODULES:
        return getattr(importlib.import_module(_LAZY_MODULES[name]), name)
    raise AttributeError(f"module 'adaptry' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return list(__all__)
