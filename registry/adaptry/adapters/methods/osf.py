"""OSF: trains the weight's small singular directions and keeps the large ones (arXiv 2504.07097; PEFT
`tuners/osf`).

The file has the trained directions. They replace those of the base's decomposition, which is computed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, ModuleTensors, Shapes, common_number
from adaptry.adapters.methods.orientation import on_matrix

if TYPE_CHECKING:
    from torch import Tensor


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    (rank,) = shapes["S_low"]
    (fan_out, up), (down, fan_in) = shapes["U_low"], shapes["V_low"]
    if rank > min(fan_in, fan_out):
        raise ValueError("more directions than a weight has")
    return ModuleSize(common_number(rank, up, down), fan_in, fan_out)


@on_matrix
def _weight(weight: Tensor, parts: ModuleTensors) -> Tensor:
    import torch

    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    kept = min(weight.shape) - parts.module.rank
    # PEFT stores these in the base's dtype before it computes with them.
    left, values, right = (
        part.contiguous().to(weight.dtype).float() for part in (left[:, kept:], values[kept:], right[kept:])
    )
    trained = torch.mm(parts["U_low"] * parts["S_low"], parts["V_low"])
    return (weight + (trained - torch.mm(left * values, right))).to(weight.dtype)


METHOD = Method(
    name="osf",
    title="OSF",
    key_patterns={rf"osf_svd_params\.{role}": role for role in ("U_low", "S_low", "V_low")},
    module_size=_module_size,
    weight=_weight,
    lora_form="given_base",
    lora_rank=lambda module, config: 2 * module.rank,  # the added directions and the removed ones
    needs_base=True,
    tolerance="bit-equal with the same LAPACK in torch and number of threads; otherwise within rounding",
)
