"""Where in a model an update sits, and how a LoRA of PEFT's layout spells it: reading and writing factors.

A site is named by the model, not by the adapter: adapters of one base that change the same weight share the
site, whatever their method and rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.methods.lora import scale_of
from adaptry.adapters.methods.lora_config import blocks, initialisation
from adaptry.adapters.methods.target_parameters import require_not_transposed
from adaptry.adapters.spec import ModuleKind, ModuleSpec
from adaptry.core.errors import CheckFailed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors


@dataclass(frozen=True, slots=True)
class WeightSite:
    """One weight of the model: `path` of its module, [fan_out, fan_in] of the update.

    `kernel` is a convolution's (fan_in counts channels only); `experts` how many matrices a fused parameter
    holds, `parameter` its name.
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
        """What tells it from the model's other weights."""
        return f"{self.path}.{self.parameter}" if self.parameter else self.path

    @property
    def width(self) -> int:
        """Columns of the update as a matrix: inputs, times the kernel's size."""
        return self.fan_in * math.prod(self.kernel)


def site_of(adapter: Adapter, module: ModuleSpec) -> WeightSite:
    """The site of a LoRA's module. Raises `CheckFailed` if the file does not tell its parameter."""
    kernel: tuple[int, ...] = ()
    experts = 1
    if module.kind == "conv":
        kernel = adapter.tensors[module.tensors["A"]].shape[2:]
    if module.kind == "parameter":
        if module.parameter is None:
            raise CheckFailed(
                f"which parameter of {module.path} the factors change is not told by the config"
                " (target_parameters); name each parameter there with its module, as in"
                " mlp.experts.down_proj"
            )
        experts = max(1, module.rank // scale_of(adapter.config, module.name)[2])
        require_not_transposed(adapter.spec)
    path = module.path.replace(".base_layer", "") if module.kind == "parameter" else module.path
    return WeightSite(path, module.kind, module.fan_out, module.fan_in, kernel, experts, module.parameter)


def plain_reason(adapter: Adapter) -> str | None:
    """Why a LoRA's factors alone are not its update; None where they are."""
    config, spec = adapter.config, adapter.spec
    if spec.method != "lora":
        return f"is {spec.method}, no LoRA"
    if "dora" in spec.traits:
        return "is DoRA, whose update depends on the base's weights"
    if "lora_bias" in spec.traits:
        return "adds to biases (lora_bias), which no product of factors holds"
    for trait, what in (
        ("alora", "aLoRA"),
        ("arrow", "an Arrow router"),
        ("qalora", "QA-LoRA"),
        ("kasa", "KaSA"),
    ):
        if trait in spec.traits:
            return f"is {what}, which is more than a sum of factors"
    init = initialisation(config)
    if init.startswith(("pissa", "olora", "corda", "lora_ga", "loftq")):
        return f"began by changing the base ({init}), so its factors alone are not its update"
    if config.fields.get("layer_replication"):
        return "renumbers the layers (layer_replication)"
    return None


def lora_factors(adapter: Adapter, module: ModuleSpec) -> Factors:
    """A LoRA module's float32 factors [out, r], [r, in·kernel]; of experts, [E, out, r], [E, r, in]."""
    import torch

    from adaptry.compute.tensors.adapter_tensors import as_tensor
    from adaptry.compute.tensors.lowrank import Factors

    def read(role: str) -> Tensor:
        name = module.tensors[role]
        return as_tensor(adapter.tensor_bytes(name), adapter.tensors[name]).float()

    if module.kind == "embedding":
        return Factors(read("embedding_B"), read("embedding_A"), module.scale)
    down, up = read("A"), read("B")
    for_down, for_up = blocks(adapter.config, module.path)
    if for_down > 1:
        # As BD-LoRA does.
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
    """The tensors of an update in PEFT's layout. `prefix`: the module's path as the file spells it (with the
    `base_layer` of nested parameters). The update's scale must be 1."""
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
    """The names `lora_tensors` gives."""
    key = f"{PREFIX}{prefix}"
    if site.kind == "embedding":
        return f"{key}.lora_embedding_A", f"{key}.lora_embedding_B"
    return f"{key}.lora_A.weight", f"{key}.lora_B.weight"
