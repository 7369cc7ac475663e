"""A plain LoRA's change of one weight, before its factors are read."""

from __future__ import annotations

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.tensors.kernel import LoraTerm, StoredMatrix
from adaptry.core.errors import InvalidWeights
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LoraDelta:
    """One adapter's change of one weight: `scale` · up @ down, [out, in]. `scale` includes the input's
    weight.
    """

    adapter: Adapter
    module: ModuleSpec
    scale: float


def read_term(update: LoraDelta) -> LoraTerm:
    """The update for a kernel, with its factors read. Raises `InvalidWeights`."""
    return LoraTerm(_factor(update, "A"), _factor(update, "B"), update.scale)


def _factor(update: LoraDelta, role: str) -> StoredMatrix:
    name = update.module.tensors[role]
    info = update.adapter.tensors[name]
    data = update.adapter.tensor_bytes(name)
    if len(data) != info.size:
        raise InvalidWeights(f"the adapter's {name} became shorter while it was read; is it being written?")
    return StoredMatrix(data, info.dtype, info.shape)
