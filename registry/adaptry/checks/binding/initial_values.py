"""Values that PEFT computes itself: for modules without tensors in the file, or in addition to those in the
file.
"""

from __future__ import annotations

import re

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import DTYPE_BITS
from adaptry.adapters.methods import METHODS
from adaptry.bases.module_map import ModuleMap

_RANDOM = frozenset(["c3a", "fourierft", "tinylora", "unilora", "vblora"])
"""Methods whose initial values change a module: observed in PEFT 0.21, by omitting a layer from each method's
file.
"""
_FLAGS = (
    *("init_lora_weights", "init_weights", "init_ia3_weights", "init_psoft_weights", "init_lokr_weights"),
    *("init_embeddings", "init_config"),
)


def changes_untrained_modules(config: AdapterConfig, method: str) -> bool:
    """Whether PEFT's initial values would randomly change a module without tensors in the file."""
    if any(config.fields.get(flag) is False for flag in _FLAGS):
        return True
    return method in _RANDOM or (method == "hra" and config.flag("apply_GS"))


def precision_loss(adapter: Adapter, base: BaseRecord, module_map: ModuleMap) -> str | None:
    """A sentence about a tensor that PEFT computes from the base at load, more precisely than the file
    stores it, or None.
    """
    recomputed = METHODS[adapter.spec.method].recomputed_roles
    stored = {base.tensors[target.tensor].dtype for target in module_map.placed if recomputed}
    bits = max((DTYPE_BITS[dtype] for dtype in stored), default=0)
    for role, name in adapter.spec.shared.items():
        dtype = adapter.tensors[name].dtype
        if DTYPE_BITS[dtype] < bits and re.fullmatch(recomputed, role):
            return (
                f"{name} was saved as {dtype}, but PEFT computes it from the base at load, unrounded: its"
                " merge differs from the file"
            )
    return None
