"""What a plain LoRA does to one weight of the base, before its factors are read."""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.spec import ModuleSpec


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """One adapter's change of one weight: `scale` · up @ down, [out, in]; the weight is in `scale`."""

    adapter: Adapter
    module: ModuleSpec
    scale: float
