"""The sites of updates in a model, and reading and writing their factors in PEFT's LoRA layout.

A site is identified by the model and not by the adapter: adapters of one base that change the same weight
share the site, whatever their method and rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.methods.lora_config import lora_variant, scale_of
from adaptry.adapters.methods.target_parameters import require_not_transposed
from adaptry.adapters.spec import ModuleKind, ModuleSpec
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors


@dataclass(frozen=True, slots=True)
class WeightSite:
    """One weight of the model: `path` of its module, [fan_out, fan_in] of the update.

    `kernel` is that of a convolution (fan_in then counts channels only). `experts` is the number of matrices
    in a fused parameter, and `parameter` its name.
    """

    path: str
    kind: ModuleKind
    fan_out: int
    fan_in: int
    kernel: tuple[int, ...] = ()
    experts: int = 1
    parameter: str | None = None

    @property
    def key(self) -> str:
        """The site's unique name in the model."""
        return f"{self.path}.{self.parameter}" if self.parameter else self.path

    @property
    def width(self) -> int:
        """Columns of the update as a matrix: inputs times the kernel's size."""
        return self.fan_in * math.prod(self.kernel)


def site_of(adapter: Adapter, module: ModuleSpec) -> WeightSite:
    """The site of a LoRA's module. Raises `CheckFailed` if the file does not determine its parameter."""
    kernel: tuple[int, ...] = ()
    experts = 1
    if module.kind == "conv":
        kernel = adapter.tensors[module.tensors["A"]].shape[2:]
    if module.kind == "parameter":
        if module.parameter is None:
            raise CheckFailed(
                f"the config (target_parameters) does not determine which parameter of {module.path} the"
                " factors"
                " change; name each parameter there with its module, such as mlp.experts.down_proj"
            )
        experts = max(1, module.rank // scale_of(adapter.config, module.name)[2])
        require_not_transposed(adapter.spec)
    path = module.path.replace(".base_layer", "") if module.kind == "parameter" else module.path
    return WeightSite(path, module.kind, module.fan_out, module.fan_in, kernel, experts, module.parameter)


def lora_factors(adapter: Adapter, module: ModuleSpec) -> Factors:
    """A LoRA module's float32 factors [out, r] and [r, in·kernel]; for experts, [E, out, r] and [E, r,
    in].
    """
    import torch

    from adaptry.compute.tensors.adapter_tensors import as_tensor
    from adaptry.compute.tensors.lowrank import Factors

    def read(role: str) -> Tensor:
        name = module.tensors[role]
        return as_tensor(adapter.tensor_bytes(name), adapter.tensors[name]).float()

    if module.kind == "embedding":
        return Factors(read("embedding_B"), read("embedding_A"), module.scale)
    down, up = read("A"), read("B")
    for_down, for_up = lora_variant(adapter.config).blocks(module.path)
    if for_down > 1:
        # As in BD-LoRA.
        down = torch.block_diag(*torch.chunk(down, for_down, dim=0))  # type: ignore[no-untyped-call]
    if for_up > 1:
        up = torch.block_diag(*torch.chunk(up, for_up, dim=0))  # type: ignore[no-untyped-call]
    if module.kind == "conv":
        return Factors(up.flatten(1), down.flatten(1), module.scale)
    if module.kind == "parameter":
        experts = site_of(adapter, module).experts
        if experts > 1:  # rows e·r + k of A, columns k·E + e of B
            down = down.reshape(experts, -1, module.fan_in)
            up = up.reshape(module.fan_out, -1, experts).permute(2, 0, 1).contiguous()
    return Factors(up, down, module.scale)


def lora_tensors(site: WeightSite, update: Factors, prefix: str, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """The tensors of an update in PEFT's layout, in `dtype`. `prefix` is the module's path in the file (with
    `base_layer` for nested parameters). The update's scale must be 1.
    """
    up, down = update.up.to(dtype), update.down.to(dtype)
    key = f"{PREFIX}{prefix}"
    if site.kind == "embedding":
        return {f"{key}.lora_embedding_A": down, f"{key}.lora_embedding_B": up}
    if site.kind == "conv":
        down = down.reshape(down.shape[0], site.fan_in, *site.kernel)
        up = up.reshape(*up.shape, *[1] * len(site.kernel))
    if site.experts > 1:
        down = down.reshape(-1, site.fan_in)
        up = up.permute(1, 2, 0).reshape(site.fan_out, -1)
    return {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}


def tensor_names(site: WeightSite, prefix: str) -> tuple[str, str]:
    """The names of the tensors that `lora_tensors` returns."""
    key = f"{PREFIX}{prefix}"
    if site.kind == "embedding":
        return f"{key}.lora_embedding_A", f"{key}.lora_embedding_B"
    return f"{key}.lora_A.weight", f"{key}.lora_B.weight"
