"""A plain LoRA's change of one weight, before its factors are read."""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.spec import ModuleSpec


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """One adapter's change of one weight: `scale` · up @ down, [out, in]. `scale` includes the input's
    weight.
    """

    adapter: Adapter
    module: ModuleSpec
    scale: float
